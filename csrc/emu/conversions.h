// Numbers of 16 bits and TF32 to and from wider ones, bit by bit as the hardware rounds them.
#pragma once

#include <cstdint>

#include "emu/bits.h"
#include "float16.h"

namespace hepfeed::device {

inline float to_float(float value) { return value; }
inline float to_float(double value) { return static_cast<float>(value); }

inline float to_float(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u)  // infinity or NaN
    return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude < 0x400u)  // zero or subnormal
    return __uint_as_float(sign | __float_as_uint(static_cast<float>(magnitude) * 0x1p-24f));
  return __uint_as_float(sign | ((magnitude << 13) + (112u << 23)));
}

inline float to_float(BFloat16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }

template <class T>
inline double to_double(T value) {
  return to_float(value);
}

template <>
inline double to_double(double value) {
  return value;
}

template <class T>
inline T from_float(float value) {
  return static_cast<T>(value);
}

// Every NaN becomes 0x7fff, here and below, as from the hardware.
template <>
inline Half from_float<Half>(float value) {
  const uint32_t bits = __float_as_uint(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t narrow;
  if (magnitude > 0x7f800000u)
    return Half{0x7fff};
  else if (magnitude >= __float_as_uint(65520.0f))  // halfway between the largest number and 2^16
    narrow = 0x7c00u;
  else if (magnitude >= __float_as_uint(0x1p-14f))
    narrow = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  else  // the spacing of floats above one half is that of subnormal halves
    narrow = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - __float_as_uint(0.5f);
  return Half{static_cast<uint16_t>(sign | narrow)};
}

template <>
inline BFloat16 from_float<BFloat16>(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return BFloat16{0x7fff};
  return BFloat16{static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

template <class T>
inline T from_double(double value) {
  return from_float<T>(static_cast<float>(value));
}

template <>
inline double from_double<double>(double value) {
  return value;
}

// To 10 bits of mantissa, ties away from zero.
inline uint32_t to_tf32(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  return (bits + 0x1000u) & ~0x1fffu;
}

}  // namespace hepfeed::device
