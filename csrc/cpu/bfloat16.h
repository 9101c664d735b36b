// Numbers of 16 bits that are the upper half of a float32.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/clones.h"

namespace hepfeed {

struct bfloat16 {
  uint16_t bits;
};

// The type in which numbers of type T are added and multiplied.
template <class T>
struct WideOf {
  using type = T;
};

template <>
struct WideOf<bfloat16> {
  using type = float;
};

template <class T>
using Wide = typename WideOf<T>::type;

template <class T>
HEPFEED_INLINE inline T widen(T value) {
  return value;
}

HEPFEED_INLINE inline float widen(bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// Rounds to nearest even; NaN stays NaN.
template <class T>
HEPFEED_INLINE inline T narrow(Wide<T> value) {
  if constexpr (sizeof(T) == sizeof(Wide<T>)) {
    return value;
  } else {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40u;
    return T{static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded)};
  }
}

}  // namespace hepfeed
