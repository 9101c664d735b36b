// Numbers of another type, and whether that type can hold them.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/numbers.cuh"
#include "kernels/rounded.cuh"
#include "port.h"

namespace hepfeed::device {

// The nearest float16, ties to even; rounded once, by way of a float32 that keeps in its last bit whether
// anything was cut off.
__device__ inline Half half_of(double value) {
  const float near = static_cast<float>(value);
  if (static_cast<double>(near) == value || value != value || fabs(static_cast<double>(near)) == INFINITY)
    return from_float<Half>(near);
  const uint32_t bits = __float_as_uint(near);
  const bool above = fabs(static_cast<double>(near)) > fabs(value);
  return from_float<Half>(__uint_as_float((above ? bits - 1 : bits) | 1u));
}

template <class To, class From>
__device__ inline To converted(From value) {
  if constexpr (std::is_same_v<To, From>)
    return value;
  else if constexpr (std::is_same_v<To, Half>)
    return half_of(as_double(value));
  else if constexpr (std::is_same_v<From, Half>)
    return static_cast<To>(to_float(value));
  else
    return static_cast<To>(value);
}

template <class T>
constexpr bool is_float = std::is_floating_point_v<T> || std::is_same_v<T, Half>;

template <class T>
struct Range {
  static constexpr T kLow = std::numeric_limits<T>::min(), kHigh = std::numeric_limits<T>::max();
};

// Whether an integer type can hold a number; a float must be whole.
template <class To, class From>
__device__ inline bool whole_fits(From value) {
  constexpr To kLow = Range<To>::kLow, kHigh = Range<To>::kHigh;
  if constexpr (is_float<From>) {
    // The next number above the highest is a power of two, which float64 holds; the highest may be none.
    constexpr double kEnd = 2.0 * static_cast<double>(static_cast<uint64_t>(kHigh) / 2 + 1);
    const double wide = as_double(value);
    return wide >= static_cast<double>(kLow) && wide < kEnd && wide == floor(wide);
  } else if constexpr (std::is_signed_v<From>) {
    const int64_t wide = value;
    if constexpr (std::is_signed_v<To>)
      return wide >= kLow && wide <= kHigh;
    else
      return wide >= 0 && static_cast<uint64_t>(wide) <= kHigh;
  } else {
    return static_cast<uint64_t>(value) <= static_cast<uint64_t>(kHigh);
  }
}

// Converts a number; `misfit` is set where the type can't hold it, as misfits() of hepfeed/transforms/cast.py
// says.
template <class To, class From>
__device__ inline To cast_of(From value, Rounding rounding, bool& misfit) {
  if constexpr (is_float<To>) {
    const To made = converted<To>(value);
    misfit |= fabs(as_double(made)) == INFINITY && fabs(as_double(value)) != INFINITY;
    return made;
  } else {
    if constexpr (is_float<From>) {
      if (rounding != Rounding::exact) {
        const double wide = as_double(value), rounded = rounding == Rounding::down ? floor(wide) : rint(wide);
        if (!whole_fits<To>(rounded)) {
          misfit = true;
          return To{};
        }
        return static_cast<To>(rounded);
      }
    }
    if (!whole_fits<To>(value)) {
      misfit = true;
      return To{};
    }
    return converted<To>(value);
  }
}

// 1 where a number is not 0; `misfit` is set where it is neither 0 nor 1.
template <class From>
__device__ inline uint8_t bool_of(From value, bool& misfit) {
  const double wide = as_double(value);
  misfit |= wide != 0.0 && wide != 1.0;
  return wide != 0.0;
}

// out = in as another type; sets *fault where a number does not fit it.
__global__ void cast_items(Items in, Results out, int64_t count, Rounding rounding,
                           int32_t* __restrict__ fault) {
  const int64_t first = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kFour;
  const int some = present_of({}, count, first);
  if (some == 0) return;
  bool misfit = false;
  with_number(in.type, [&](auto from) {
    using From = decltype(from);
    const Four<From> four = load_four(static_cast<const From*>(in.data) + first, some);
    with_number(out.type, [&](auto to) {
      using To = decltype(to);
      Four<To> made;
      for (int k = 0; k < kFour; ++k) {
        if (std::is_same_v<To, uint8_t> && out.type == Number::b8)
          made.item[k] = converted<To>(bool_of(four.item[k], misfit));
        else
          made.item[k] = cast_of<To>(four.item[k], rounding, misfit);
      }
      store_four(made, static_cast<To*>(out.data) + first, some);
    });
  });
  if (misfit) atomicOr(fault, 1);
}

}  // namespace hepfeed::device
