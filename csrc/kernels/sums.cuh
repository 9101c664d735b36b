// In which type numbers are added.
#pragma once

#include <type_traits>

#include "port.h"

namespace hepfeed::device {

// double for double, else float.
template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
__device__ __forceinline__ SumOf<T> widened(T value) {
  if constexpr (std::is_same_v<T, double>)
    return value;
  else
    return to_float(value);
}

// Rounded to the nearest number of T, ties to even.
template <class T>
__device__ __forceinline__ T narrowed(SumOf<T> sum) {
  if constexpr (std::is_same_v<T, double>)
    return sum;
  else
    return from_float<T>(sum);
}

}  // namespace hepfeed::device
