#include "cpu/convert.h"

#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "cpu/isa.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

struct Half {
  uint16_t bits;
};

template <class To, class From>
inline To cast(From value) {
  if constexpr (std::is_same_v<From, Half> && std::is_same_v<To, Half>) {
    return value;
  } else if constexpr (std::is_same_v<From, Half>) {
    return static_cast<To>(half_to_float(value.bits));
  } else if constexpr (std::is_same_v<To, Half> && std::is_same_v<From, double>) {
    // Rounding twice (to float, then to half) may differ from rounding once: make the first rounding "to
    // odd".
    float single = static_cast<float>(value);
    if (static_cast<double>(single) != value) {
      uint32_t bits;
      std::memcpy(&bits, &single, 4);
      const bool away = (static_cast<double>(single) > value) == (value > 0);
      if (away && (bits & 0x7fffffffu) != 0) bits -= 1;
      bits |= 1;
      std::memcpy(&single, &bits, 4);
    }
    return Half{float_to_half(single)};
  } else if constexpr (std::is_same_v<To, Half>) {
    return cast<Half, double>(static_cast<double>(value));
  } else {
    return static_cast<To>(value);
  }
}

template <class From, class To>
void convert_items(const uint8_t* in, uint8_t* out, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, in + i * sizeof(From), sizeof(From));
    const To result = cast<To, From>(value);
    std::memcpy(out + i * sizeof(To), &result, sizeof(To));
  }
}

#if HEPFEED_X86
HEPFEED_TARGET_AVX2 size_t half_to_float_f16c(const uint8_t* in, uint8_t* out, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * i));
    _mm256_storeu_ps(reinterpret_cast<float*>(out + 4 * i), _mm256_cvtph_ps(halves));
  }
  return i;
}

HEPFEED_TARGET_AVX2 size_t float_to_half_f16c(const uint8_t* in, uint8_t* out, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 floats = _mm256_loadu_ps(reinterpret_cast<const float*>(in + 4 * i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i),
                     _mm256_cvtps_ph(floats, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  return i;
}
#endif

template <class From>
void convert_from(const uint8_t* in, uint8_t* out, Type to, size_t count) {
  switch (to) {
    case Type::i8:
      return convert_items<From, int8_t>(in, out, count);
    case Type::i16:
      return convert_items<From, int16_t>(in, out, count);
    case Type::i32:
      return convert_items<From, int32_t>(in, out, count);
    case Type::i64:
      return convert_items<From, int64_t>(in, out, count);
    case Type::u8:
      return convert_items<From, uint8_t>(in, out, count);
    case Type::u16:
      return convert_items<From, uint16_t>(in, out, count);
    case Type::u32:
      return convert_items<From, uint32_t>(in, out, count);
    case Type::u64:
      return convert_items<From, uint64_t>(in, out, count);
    case Type::f16:
      return convert_items<From, Half>(in, out, count);
    case Type::f32:
      return convert_items<From, float>(in, out, count);
    case Type::f64:
      return convert_items<From, double>(in, out, count);
    case Type::opaque:
      break;
  }
  throw std::invalid_argument("items without a number type can't be converted");
}

template <class Word>
void swap_words(uint8_t* data, size_t count, Word (*swap)(Word)) {
  for (size_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, data + i * sizeof(Word), sizeof(Word));
    word = swap(word);
    std::memcpy(data + i * sizeof(Word), &word, sizeof(Word));
  }
}

}  // namespace

Type type_of(const std::string& code) {
  static const char* const kCodes[] = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"};
  for (int i = 0; i < 11; ++i)
    if (code == kCodes[i]) return static_cast<Type>(i);
  return Type::opaque;
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  uint32_t mantissa = half & 0x3ffu, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | (mantissa << 13);
    if (mantissa) bits |= 0x00400000u;  // a signalling NaN becomes quiet, as the hardware does
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else if (mantissa == 0) {
    bits = sign;
  } else {  // subnormal: normalise
    uint32_t shift = 0;
    while (!(mantissa & 0x400u)) {
      mantissa <<= 1;
      ++shift;
    }
    bits = sign | ((113 - shift) << 23) | ((mantissa & 0x3ffu) << 13);
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

uint16_t float_to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and above
  if (magnitude < 0x33000000u) return sign;  // below half the least subnormal
  uint32_t mantissa, shift;
  uint32_t result;
  if (magnitude >= 0x38800000u) {  // normal
    result = (magnitude - 0x38000000u) >> 13;
    mantissa = magnitude;
    shift = 13;
  } else {
    shift = 126 - (magnitude >> 23);  // 14 .. 24
    mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    result = mantissa >> shift;
  }
  const uint32_t rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1);
  if (rest > tie || (rest == tie && (result & 1))) ++result;  // may carry into infinity, which is right
  return static_cast<uint16_t>(sign | result);
}

void byteswap(uint8_t* data, size_t count, size_t item) {
  switch (item) {
    case 2:
      return swap_words<uint16_t>(data, count, [](uint16_t w) -> uint16_t { return __builtin_bswap16(w); });
    case 4:
      return swap_words<uint32_t>(data, count, [](uint32_t w) -> uint32_t { return __builtin_bswap32(w); });
    case 8:
      return swap_words<uint64_t>(data, count, [](uint64_t w) -> uint64_t { return __builtin_bswap64(w); });
    default:
      return;
  }
}

void convert(const uint8_t* in, Type from, uint8_t* out, Type to, size_t count) {
  size_t done = 0;
#if HEPFEED_X86
  if (isa() >= Isa::avx2 && from == Type::f16 && to == Type::f32) done = half_to_float_f16c(in, out, count);
  if (isa() >= Isa::avx2 && from == Type::f32 && to == Type::f16) done = float_to_half_f16c(in, out, count);
#endif
  if (done) {
    const size_t from_size = from == Type::f16 ? 2 : 4;
    in += done * from_size;
    out += done * (6 - from_size);
    count -= done;
  }
  switch (from) {
    case Type::i8:
      return convert_from<int8_t>(in, out, to, count);
    case Type::i16:
      return convert_from<int16_t>(in, out, to, count);
    case Type::i32:
      return convert_from<int32_t>(in, out, to, count);
    case Type::i64:
      return convert_from<int64_t>(in, out, to, count);
    case Type::u8:
      return convert_from<uint8_t>(in, out, to, count);
    case Type::u16:
      return convert_from<uint16_t>(in, out, to, count);
    case Type::u32:
      return convert_from<uint32_t>(in, out, to, count);
    case Type::u64:
      return convert_from<uint64_t>(in, out, to, count);
    case Type::f16:
      return convert_from<Half>(in, out, to, count);
    case Type::f32:
      return convert_from<float>(in, out, to, count);
    case Type::f64:
      return convert_from<double>(in, out, to, count);
    case Type::opaque:
      throw std::invalid_argument("items without a number type can't be converted");
  }
}

}  // namespace hepfeed
