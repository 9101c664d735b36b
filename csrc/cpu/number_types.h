// One call for whatever type of number an array holds.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "cpu/convert.h"

namespace hepfeed {

// A float16 as its bits.
struct Half {
  uint16_t bits;
};

// Calls `function` with a 0 of the C++ type of `type`; throws std::invalid_argument(`refusal`) for opaque
// items.
template <class Function>
auto with_number_type(Type type, const char* refusal, const Function& function) {
  switch (type) {
    case Type::i8:
      return function(int8_t{});
    case Type::i16:
      return function(int16_t{});
    case Type::i32:
      return function(int32_t{});
    case Type::i64:
      return function(int64_t{});
    case Type::u8:
      return function(uint8_t{});
    case Type::u16:
      return function(uint16_t{});
    case Type::u32:
      return function(uint32_t{});
    case Type::u64:
      return function(uint64_t{});
    case Type::f16:
      return function(Half{});
    case Type::f32:
      return function(float{});
    case Type::f64:
      return function(double{});
    case Type::opaque:
      break;
  }
  throw std::invalid_argument(refusal);
}

}  // namespace hepfeed
