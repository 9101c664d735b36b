// Quotients by a number that is known before the launch: a multiplication and a shift, where a division is
// tens of instructions.
#pragma once

#include "port.h"

namespace hepfeed::device {

// For d from 1 to 2^31 - 1, s = ceil(log2 d) and m = ceil(2^(31 + s) / d), n / d is n m >> (31 + s) for every
// n below 2^31: m d exceeds 2^(31 + s) by less than d <= 2^s, which n / 2^(31 + s) of makes less than 1 / d.
struct Divisor {
  uint32_t divisor;
  uint32_t multiplier;
  int32_t shift;

  Divisor() = default;
  explicit Divisor(uint32_t number) : divisor(number), shift(31) {
    while ((uint64_t{1} << (shift - 31)) < number) ++shift;
    multiplier = static_cast<uint32_t>(((uint64_t{1} << shift) + number - 1) / number);
  }

  __host__ __device__ uint32_t quotient(uint32_t n) const {
    return static_cast<uint32_t>((static_cast<uint64_t>(n) * multiplier) >> shift);
  }
};

}  // namespace hepfeed::device
