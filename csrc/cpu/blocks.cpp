#include "cpu/blocks.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "cpu/clones.h"

namespace hepfeed {
namespace {

struct Blocks {
  size_t axes;
  const int64_t* shape;
  const int64_t* factor;
  size_t events;

  int64_t out_length(size_t axis) const { return (shape[axis] + factor[axis] - 1) / factor[axis]; }
};

template <class Sum, bool Max>
inline HEPFEED_INLINE Sum joined(Sum a, Sum b) {
  if constexpr (!Max)
    return a + b;
  else if constexpr (std::is_floating_point_v<Sum>)
    return b > a || b != b ? b : a;  // a NaN stays: nothing is greater
  else
    return b > a ? b : a;
}

// Adds a row to `sums`, or takes the greater; `first` is set where there is nothing there yet.
template <class In, class Sum, bool Max>
void join_row(const In* row, Sum* sums, size_t count, bool first) {
  for_isa([=]() HEPFEED_INLINE {
    if (first)
      for (size_t i = 0; i < count; ++i) sums[i] = static_cast<Sum>(row[i]);
    else
      for (size_t i = 0; i < count; ++i) sums[i] = joined<Sum, Max>(sums[i], static_cast<Sum>(row[i]));
  });
}

// As join_row, for integers of 64 bits; false where the sum does not fit.
template <class In>
bool add_checked(const In* row, int64_t* sums, size_t count, bool first) {
  bool bad = false;
  for (size_t i = 0; i < count; ++i) {
    if constexpr (std::is_unsigned_v<In>)
      bad |= row[i] > static_cast<In>(std::numeric_limits<int64_t>::max());
    if (first)
      sums[i] = static_cast<int64_t>(row[i]);
    else
      bad |= __builtin_add_overflow(sums[i], static_cast<int64_t>(row[i]), &sums[i]);
  }
  return !bad;
}

template <class Sum, class Out, bool Max, int64_t Factor>
inline HEPFEED_INLINE void join_items(const Sum* sums, Out* out, int64_t count, int64_t factor,
                                      double scale) {
  const int64_t step = Factor ? Factor : factor;
  for (int64_t j = 0; j < count; ++j) {
    Sum total = sums[j * step];
    for (int64_t k = 1; k < step; ++k) total = joined<Sum, Max>(total, sums[j * step + k]);
    if constexpr (std::is_floating_point_v<Sum> && !Max)
      out[j] = static_cast<Out>(total * scale);
    else
      out[j] = static_cast<Out>(total);
  }
}

// Reduces `sums` along the last axis.  `rows` is how many were joined; `mean` divides by the items of a
// block.
template <class Sum, class Out, bool Max>
void finish_row(const Sum* sums, Out* out, int64_t length, int64_t factor, int64_t rows, bool mean) {
  const int64_t whole = length / factor, rest = length % factor;
  const double items = static_cast<double>(rows) * static_cast<double>(factor);
  const double scale = mean ? 1.0 / items : 1.0;
  for_isa([=]() HEPFEED_INLINE {
    switch (factor) {
      case 1:
        join_items<Sum, Out, Max, 1>(sums, out, whole, factor, scale);
        break;
      case 2:
        join_items<Sum, Out, Max, 2>(sums, out, whole, factor, scale);
        break;
      case 3:
        join_items<Sum, Out, Max, 3>(sums, out, whole, factor, scale);
        break;
      case 4:
        join_items<Sum, Out, Max, 4>(sums, out, whole, factor, scale);
        break;
      case 8:
        join_items<Sum, Out, Max, 8>(sums, out, whole, factor, scale);
        break;
      default:
        join_items<Sum, Out, Max, 0>(sums, out, whole, factor, scale);
    }
    if (rest) {
      const double few = mean ? 1.0 / (static_cast<double>(rows) * static_cast<double>(rest)) : 1.0;
      join_items<Sum, Out, Max, 0>(sums + whole * factor, out + whole, 1, rest, few);
    }
  });
}

template <class Sum>
bool finish_checked(const Sum* sums, int64_t* out, int64_t length, int64_t factor) {
  bool bad = false;
  for (int64_t start = 0; start < length; start += factor) {
    int64_t total = sums[start];
    for (int64_t i = start + 1; i < std::min(start + factor, length); ++i)
      bad |= __builtin_add_overflow(total, sums[i], &total);
    *out++ = total;
  }
  return !bad;
}

template <class In, class Sum, class Out, bool Max, bool Half = false>
bool reduce_all(const Blocks& b, const uint8_t* in, uint8_t* out, bool mean, uint8_t* scratch) {
  constexpr bool kChecked = std::is_same_v<Sum, int64_t> && sizeof(In) == 8 && !Max;
  const size_t last = b.axes - 1, item = Half ? 2 : sizeof(In);
  const int64_t length = b.shape[last];
  auto* sums = reinterpret_cast<Sum*>(scratch);
  auto* widened = reinterpret_cast<In*>(scratch + 8 * static_cast<size_t>(length));
  auto* to = reinterpret_cast<Out*>(out);
  std::vector<int64_t> stride(b.axes, 1);  // of input rows
  int64_t rows = 1, out_rows = 1;
  for (size_t a = last; a-- > 0;) {
    stride[a] = rows;
    rows *= b.shape[a];
    out_rows *= b.out_length(a);
  }
  if (rows == 0 || length == 0) return true;
  std::vector<int64_t> at(b.axes), within(b.axes), size(b.axes);
  for (size_t e = 0; e < b.events; ++e, in += static_cast<size_t>(rows * length) * item) {
    std::fill(at.begin(), at.end(), 0);
    for (int64_t r = 0; r < out_rows; ++r, to += b.out_length(last)) {
      int64_t row = 0, joined_rows = 1;
      for (size_t a = 0; a < last; ++a) {
        row += at[a] * b.factor[a] * stride[a];
        size[a] = std::min(b.factor[a], b.shape[a] - at[a] * b.factor[a]);
        joined_rows *= size[a];
      }
      std::fill(within.begin(), within.end(), 0);
      for (int64_t k = 0; k < joined_rows; ++k) {
        const uint8_t* bytes = in + static_cast<size_t>(row * length) * item;
        const In* items = reinterpret_cast<const In*>(bytes);
        if constexpr (Half) {
          convert(bytes, Type::f16, reinterpret_cast<uint8_t*>(widened), Type::f32,
                  static_cast<size_t>(length));
          items = widened;
        }
        if constexpr (kChecked) {
          if (!add_checked(items, sums, static_cast<size_t>(length), k == 0)) return false;
        } else {
          join_row<In, Sum, Max>(items, sums, static_cast<size_t>(length), k == 0);
        }
        for (size_t a = last; a-- > 0;) {
          row += stride[a];
          if (++within[a] < size[a]) break;
          row -= size[a] * stride[a];
          within[a] = 0;
        }
      }
      if constexpr (kChecked) {
        if (!finish_checked(sums, to, length, b.factor[last])) return false;
      } else {
        finish_row<Sum, Out, Max>(sums, to, length, b.factor[last], joined_rows, mean);
      }
      for (size_t a = last; a-- > 0;) {
        if (++at[a] < b.out_length(a)) break;
        at[a] = 0;
      }
    }
  }
  return true;
}

template <class In>
bool reduce_integers(const Blocks& b, const uint8_t* in, uint8_t* out, Reduce reduce, uint8_t* scratch) {
  switch (reduce) {
    case Reduce::sum:
      return reduce_all<In, int64_t, int64_t, false>(b, in, out, false, scratch);
    case Reduce::mean:
      return reduce_all<In, double, float, false>(b, in, out, true, scratch);
    default:
      return reduce_all<In, In, In, true>(b, in, out, false, scratch);
  }
}

template <class T, bool Half = false>
bool reduce_floats(const Blocks& b, const uint8_t* in, uint8_t* out, Reduce reduce, uint8_t* scratch) {
  if (reduce == Reduce::max) return reduce_all<T, T, T, true, Half>(b, in, out, false, scratch);
  return reduce_all<T, double, T, false, Half>(b, in, out, reduce == Reduce::mean, scratch);
}

}  // namespace

bool reduce_blocks(const uint8_t* in, Type type, uint8_t* out, Reduce reduce, size_t axes,
                   const int64_t* shape, const int64_t* factor, size_t events, uint8_t* scratch) {
  const Blocks blocks{axes, shape, factor, events};
  switch (type) {
    case Type::i8:
      return reduce_integers<int8_t>(blocks, in, out, reduce, scratch);
    case Type::i16:
      return reduce_integers<int16_t>(blocks, in, out, reduce, scratch);
    case Type::i32:
      return reduce_integers<int32_t>(blocks, in, out, reduce, scratch);
    case Type::i64:
      return reduce_integers<int64_t>(blocks, in, out, reduce, scratch);
    case Type::u8:
      return reduce_integers<uint8_t>(blocks, in, out, reduce, scratch);
    case Type::u16:
      return reduce_integers<uint16_t>(blocks, in, out, reduce, scratch);
    case Type::u32:
      return reduce_integers<uint32_t>(blocks, in, out, reduce, scratch);
    case Type::u64:
      return reduce_integers<uint64_t>(blocks, in, out, reduce, scratch);
    case Type::f16:
      return reduce_floats<float, true>(blocks, in, out, reduce, scratch);
    case Type::f32:
      return reduce_floats<float>(blocks, in, out, reduce, scratch);
    case Type::f64:
      return reduce_floats<double>(blocks, in, out, reduce, scratch);
    case Type::opaque:
      break;
  }
  throw std::invalid_argument("items without a number type can't be added up");
}

}  // namespace hepfeed
