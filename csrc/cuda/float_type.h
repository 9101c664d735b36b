// The floating point types of matrices.
#pragma once

#include <stdexcept>
#include <string>

#include "float16.h"

namespace hepfeed::device {

enum class FloatType { float32, float64, bfloat16, float16 };

// By torch's name of it.
inline FloatType float_type(const std::string& name) {
  if (name == "float32") return FloatType::float32;
  if (name == "float64") return FloatType::float64;
  if (name == "bfloat16") return FloatType::bfloat16;
  if (name == "float16") return FloatType::float16;
  throw std::invalid_argument("numbers must be float32, float64, bfloat16 or float16, not " + name);
}

// Calls function(T{}) with the type that kernels have for it.
template <class Function>
void with_float_type(FloatType type, const Function& function) {
  switch (type) {
    case FloatType::float32:
      return function(float{});
    case FloatType::float64:
      return function(double{});
    case FloatType::bfloat16:
      return function(BFloat16{});
    case FloatType::float16:
      return function(Half{});
  }
}

}  // namespace hepfeed::device
