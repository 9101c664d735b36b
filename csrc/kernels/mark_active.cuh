// Which sites of dense images are above a threshold: the rule of cpu/sparsify.h.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/numbers.cuh"
#include "kernels/rounded.cuh"
#include "port.h"

namespace hepfeed::device {

// Whether x > threshold, compared exactly; a NaN is.
template <class T>
__device__ inline bool above(T x, double threshold) {
  if constexpr (std::is_integral_v<T> && sizeof(T) == 8) {
    if (threshold >= (std::is_signed_v<T> ? 0x1p63 : 0x1p64)) return false;
    if (threshold < (std::is_signed_v<T> ? -0x1p63 : 0.0)) return true;
    return x > static_cast<T>(floor(threshold));
  } else {
    return !(as_double(x) <= threshold);
  }
}

// Whether x < -threshold, for a threshold of 0 or more.
template <class T>
__device__ inline bool below(T x, double threshold) {
  if constexpr (std::is_integral_v<T> && sizeof(T) == 8) {
    if constexpr (std::is_signed_v<T>)
      return threshold < 0x1p63 && x < -static_cast<T>(floor(threshold));
    else
      return false;
  } else {
    return as_double(x) < -threshold;
  }
}

// marks[o, i] = 1 where some channel of images (outer, channels, inner) is above the threshold, or, where
// `absolute`, also below its negative; else 0.  One thread marks four sites: one pass over the images.
__global__ void mark_sites(ChannelImages images, double threshold, bool absolute,
                           uint8_t* __restrict__ marks) {
  const int64_t first = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kFour;
  const int64_t channels = images.channels, inner = images.inner;
  const int some = present_of({}, images.outer * inner, first);
  if (some == 0) return;
  Four<uint8_t> four = {};
  with_number(images.items.type, [&](auto zero) {
    using T = decltype(zero);
    const auto active = [&](T x) { return above(x, threshold) || (absolute && below(x, threshold)); };
    const T* items = static_cast<const T*>(images.items.data);
    if (channels == 1) {
      const Four<T> loaded = load_four(items + first, some);
      for (int k = 0; k < kFour; ++k) four.item[k] = active(loaded.item[k]);
      return;
    }
#pragma unroll
    for (int k = 0; k < kFour; ++k) {
      if (k >= some) break;
      const int64_t site = first + k, row = site / inner;
      const T* channel = items + row * channels * inner + (site - row * inner);
      bool any = false;
      for (int64_t c = 0; c < channels && !any; ++c) any = active(channel[c * inner]);
      four.item[k] = any;
    }
  });
  store_four(four, marks + first, some);
}

}  // namespace hepfeed::device
