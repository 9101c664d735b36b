// Conversion of decoded items to the type of a batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace hepfeed {

enum class Type : uint8_t { i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64, opaque };

// The type of a NumPy code such as "f4" or "u2"; anything else is opaque (copied, never converted).
Type type_of(const std::string& code);

// Reverses the bytes of each of `count` items of `item` bytes, in place; item is 1, 2, 4 or 8.
void byteswap(uint8_t* data, size_t count, size_t item);

// out[i] = static_cast<to>(in[i]), as NumPy's astype: float16 rounds to nearest even, integers wrap.
// Throws std::invalid_argument for opaque items of different kinds.
void convert(const uint8_t* in, Type from, uint8_t* out, Type to, size_t count);

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);

}  // namespace hepfeed
