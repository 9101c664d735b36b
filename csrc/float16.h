// Numbers of 16 bits as they lie in memory.
#pragma once

#include <cstdint>

namespace hepfeed::device {

// IEEE 754 binary16: 1 bit of sign, 5 of exponent, 10 of mantissa.
struct Half {
  uint16_t bits;
};

// The upper half of a float32: 1 bit of sign, 8 of exponent, 7 of mantissa.
struct BFloat16 {
  uint16_t bits;
};

}  // namespace hepfeed::device
