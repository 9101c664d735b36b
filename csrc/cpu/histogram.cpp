#include "cpu/histogram.h"

#include <algorithm>
#include <stdexcept>
#include <type_traits>

namespace hepfeed {
namespace {

struct Half {
  uint16_t bits;
};
struct Nothing {};

double number(Half value) { return half_to_float(value.bits); }
template <class T>
double number(T value) {
  return static_cast<double>(value);
}

template <class T>
void add(const int64_t* cell, const T* weight, int64_t first, int64_t last, double* sums) {
  for (int64_t i = first; i < last; ++i) {
    if (cell[i] < 0) continue;
    if constexpr (std::is_same_v<T, Nothing>)
      sums[cell[i]] += 1;
    else
      sums[cell[i]] += number(weight[i]);
  }
}

template <class T>
void fill(const int64_t* cell, const void* weight, const int64_t* offsets, size_t events, size_t cells,
          double* sums, float* out) {
  for (size_t e = 0; e < events; ++e, out += cells) {
    std::fill(sums, sums + cells, 0.0);
    add(cell, static_cast<const T*>(weight), offsets[e], offsets[e + 1], sums);
    for (size_t c = 0; c < cells; ++c) out[c] = static_cast<float>(sums[c]);
  }
}

}  // namespace

void histogram(const int64_t* cell, const void* weight, Type weight_type, const int64_t* offsets,
               size_t events, size_t cells, double* sums, float* out) {
  if (!weight) return fill<Nothing>(cell, weight, offsets, events, cells, sums, out);
  switch (weight_type) {
    case Type::i8:
      return fill<int8_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::i16:
      return fill<int16_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::i32:
      return fill<int32_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::i64:
      return fill<int64_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::u8:
      return fill<uint8_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::u16:
      return fill<uint16_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::u32:
      return fill<uint32_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::u64:
      return fill<uint64_t>(cell, weight, offsets, events, cells, sums, out);
    case Type::f16:
      return fill<Half>(cell, weight, offsets, events, cells, sums, out);
    case Type::f32:
      return fill<float>(cell, weight, offsets, events, cells, sums, out);
    case Type::f64:
      return fill<double>(cell, weight, offsets, events, cells, sums, out);
    case Type::opaque:
      break;
  }
  throw std::invalid_argument("weights without a number type can't be added");
}

}  // namespace hepfeed
