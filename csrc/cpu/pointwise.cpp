#include "cpu/pointwise.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "cpu/vector_math.h"

namespace hepfeed {
namespace {

// A parameter that is the same for all items of a block, and one that has an entry for each.
struct Same {
  double value;
  explicit HEPFEED_INLINE Same(const double* entry) : value(*entry) {}
  HEPFEED_INLINE double operator[](size_t) const { return value; }
};
using Each = const double*;

// x <- log(x + p) q; returns whether any sum is not positive.
template <class Param>
inline HEPFEED_INLINE bool take_log(Param p, Param q, size_t count, double* x) {
  double rest[kBlock];
  int64_t bad = 0, special = 0;
  for (size_t i = 0; i < count; ++i) {
    const double a = x[i], b = p[i], sum = a + b;
    const double back = sum - a;
    rest[i] = (a - (sum - back)) + (b - back);  // sum + rest is the exact sum (Knuth)
    bad |= sum <= 0.0;
    special |= !(regular_for_log(sum) & (rest[i] == 0.0));
    x[i] = sum;
  }
  // Most sums are exact in float64, as those of float32 numbers from 2^-29 on with 1 are.
  if (special)
    for (size_t i = 0; i < count; ++i) x[i] = log_of(x[i], rest[i] == rest[i] ? rest[i] : 0.0) * q[i];
  else
    for (size_t i = 0; i < count; ++i) x[i] = log_of_regular(x[i]) * q[i];
  return bad != 0;
}

template <class Param>
inline HEPFEED_INLINE bool apply(Op op, Param p, Param q, Param r, size_t count, double* x) {
  bool refused = false;
  switch (op) {
    case Op::linear:
      for (size_t i = 0; i < count; ++i) x[i] = (x[i] - p[i]) * q[i] + r[i];
      break;
    case Op::clip:
      for (size_t i = 0; i < count; ++i) {
        const double low = x[i] < p[i] ? p[i] : x[i];
        x[i] = low > q[i] ? q[i] : low;
      }
      break;
    case Op::log:
      refused = take_log(p, q, count, x);
      break;
    case Op::log_tanh: {
      int64_t bad = 0;
      for (size_t i = 0; i < count; ++i) {
        const double t = x[i] * p[i], u = t * (t + 2.0), value = u / (u + 2.0);
        bad |= t <= -1.0;
        x[i] = u > 0x1p60 ? 1.0 : value;
      }
      refused = bad != 0;
      break;
    }
    case Op::round:
      for (size_t i = 0; i < count; ++i) x[i] = static_cast<double>(static_cast<float>(x[i]));
      break;
  }
  return refused;
}

// Runs the program on a block; parameter k of operation o is at params[(3 o + k) entries].
template <class Param>
inline HEPFEED_INLINE bool run(const Program& program, const double* params, size_t count, double* x) {
  bool refused = false;
  for (size_t o = 0; o < program.length; ++o) {
    const double* p = params + 3 * o * program.entries;
    refused |= apply<Param>(static_cast<Op>(program.ops[o]), Param{p}, Param{p + program.entries},
                            Param{p + 2 * program.entries}, count, x);
  }
  return refused;
}

constexpr size_t kGroup = 8;  // items

// Writes where the groups begin that hold anything but 0, and returns how many they are.
inline HEPFEED_INLINE size_t active_groups(size_t groups, const double* x, size_t* places) {
  uint8_t active[kBlock];
  for (size_t i = 0; i < groups * kGroup; ++i) active[i] = bits_of(x[i]) != 0;
  size_t count = 0;
  for (size_t g = 0; g < groups; ++g) {
    uint64_t any;
    static_assert(sizeof any == kGroup, "the flags of a group are a word");
    std::memcpy(&any, active + g * kGroup, kGroup);
    places[count] = g * kGroup;
    count += any != 0;
  }
  return count;
}

// As run<Same>(), for operations that cost more than to look for zeros.  In images of calorimeters most items
// are 0: the program runs on the groups of items that are not all 0, and on one group of zeros for the
// others.
inline HEPFEED_INLINE bool run_active(const Program& program, const double* params, size_t count, double* x) {
  const size_t groups = (count + kGroup - 1) / kGroup;
  std::memset(x + count, 0, sizeof(double) * (groups * kGroup - count));
  size_t places[kBlock / kGroup];
  const size_t active = active_groups(groups, x, places);
  const bool packs = 2 * active < groups;
  double packed[kBlock / 2];
  double* items = packs ? packed : x;
  if (packs) {
    std::memset(packed, 0, sizeof(double) * kGroup);
    for (size_t n = 0; n < active; ++n)
      std::memcpy(packed + (n + 1) * kGroup, x + places[n], sizeof(double) * kGroup);
  }
  const bool refused = run<Same>(program, params, packs ? (active + 1) * kGroup : count, items);
  if (packs) {
    const double zero = packed[0];
    for (size_t i = 0; i < count; ++i) x[i] = zero;
    for (size_t n = 0; n < active; ++n)
      std::memcpy(x + places[n], packed + (n + 1) * kGroup, sizeof(double) * kGroup);
  }
  return refused;
}

bool is_costly(const Program& program) {
  return std::any_of(program.ops, program.ops + program.length, [](int64_t op) {
    return static_cast<Op>(op) == Op::log || static_cast<Op>(op) == Op::log_tanh;
  });
}

template <class In>
inline HEPFEED_INLINE void widen(const uint8_t* in, size_t count, double* out) {
  using Loose __attribute__((aligned(1), may_alias)) = In;
  const auto* items = reinterpret_cast<const Loose*>(in);
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<double>(items[i]);
}

inline HEPFEED_INLINE void narrow(const double* in, size_t count, uint8_t* out) {
  using Loose __attribute__((aligned(1), may_alias)) = float;
  auto* items = reinterpret_cast<Loose*>(out);
  for (size_t i = 0; i < count; ++i) items[i] = static_cast<float>(in[i]);
}

// The place of the first item of a block that is refused: found by running it on each alone.
size_t first_refused(const uint8_t* in, Type type, const Program& program, const double* params,
                     size_t stride, size_t count) {
  double x[kBlock];
  load_block(in, type, count, x);
  for (size_t i = 0; i < count; ++i)
    if (run<Same>(program, params + stride * i, 1, x + i)) return i;
  return 0;
}

}  // namespace

void load_block(const uint8_t* in, Type type, size_t count, double* out) {
  if (type == Type::f32) {
    for_isa([=]() HEPFEED_INLINE { widen<float>(in, count, out); });
  } else if (type == Type::f16) {
    float single[kBlock];
    convert(in, type, reinterpret_cast<uint8_t*>(single), Type::f32, count);
    for_isa([&]() HEPFEED_INLINE { widen<float>(reinterpret_cast<const uint8_t*>(single), count, out); });
  } else {
    convert(in, type, reinterpret_cast<uint8_t*>(out), Type::f64, count);
  }
}

void store_block(const double* in, size_t count, uint8_t* out, Type type) {
  if (type == Type::f64)
    std::memcpy(out, in, 8 * count);
  else
    for_isa([=]() HEPFEED_INLINE { narrow(in, count, out); });
}

int64_t pointwise(const uint8_t* in, Type type, uint8_t* out, Type out_type, size_t count,
                  const Program& program) {
  const size_t item = bytes_of(type), out_item = bytes_of(out_type);
  if (item == 0 || (out_type != Type::f32 && out_type != Type::f64))
    throw std::invalid_argument("a program maps numbers to float32 or float64");
  const bool same = program.run > 1 || program.entries == 1;
  const bool costly = is_costly(program);
  double x[kBlock];
  for (size_t i = 0; i < count;) {
    // A block ends where the entry changes, or where the table of entries does.
    const size_t place = program.run > 1 ? i % program.run : i % program.entries;
    const size_t until =
        program.entries == 1 ? count : (program.run > 1 ? program.run : program.entries) - place;
    const size_t some = std::min({kBlock, count - i, until});
    const double* params = program.params + i / program.run % program.entries;
    load_block(in + i * item, type, some, x);
    bool refused = false;
    for_isa([&]() HEPFEED_INLINE {
      refused = !same    ? run<Each>(program, params, some, x)
                : costly ? run_active(program, params, some, x)
                         : run<Same>(program, params, some, x);
    });
    if (refused)
      return static_cast<int64_t>(i +
                                  first_refused(in + i * item, type, program, params, same ? 0 : 1, some));
    store_block(x, some, out + i * out_item, out_type);
    i += some;
  }
  return -1;
}

}  // namespace hepfeed
