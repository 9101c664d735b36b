#include "cpu/histogram.h"

#include <algorithm>
#include <stdexcept>
#include <type_traits>

#include "cpu/number_types.h"

namespace hepfeed {
namespace {

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
  return with_number_type(weight_type, "weights without a number type can't be added", [&](auto zero) {
    return fill<decltype(zero)>(cell, weight, offsets, events, cells, sums, out);
  });
}

}  // namespace hepfeed
