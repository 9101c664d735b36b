#include "cpu/unshuffle.h"

#include <cstring>

#include "cpu/isa.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

template <size_t Item>
void unshuffle_tail(const uint8_t* in, uint8_t* out, size_t first, size_t count) {
  for (size_t i = first; i < count; ++i)
    for (size_t b = 0; b < Item; ++b) out[i * Item + b] = in[b * count + i];
}

void unshuffle_any(const uint8_t* in, uint8_t* out, size_t count, size_t item) {
  for (size_t b = 0; b < item; ++b)
    for (size_t i = 0; i < count; ++i) out[i * item + b] = in[b * count + i];
}

#if HEPFEED_X86

// Each variant interleaves planes within 128-bit lanes (unpack works by lane) and stores the lanes in item
// order.

HEPFEED_TARGET_AVX2 size_t unshuffle2_avx2(const uint8_t* in, uint8_t* out, size_t count) {
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + count + i));
    const __m256i lo = _mm256_unpacklo_epi8(a, b), hi = _mm256_unpackhi_epi8(a, b);
    auto* to = reinterpret_cast<__m256i*>(out + 2 * i);
    _mm256_storeu_si256(to + 0, _mm256_permute2x128_si256(lo, hi, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(lo, hi, 0x31));
  }
  return i;
}

HEPFEED_TARGET_AVX2 size_t unshuffle4_avx2(const uint8_t* in, uint8_t* out, size_t count) {
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    __m256i p[4];
    for (int b = 0; b < 4; ++b)
      p[b] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + b * count + i));
    const __m256i lo01 = _mm256_unpacklo_epi8(p[0], p[1]), hi01 = _mm256_unpackhi_epi8(p[0], p[1]);
    const __m256i lo23 = _mm256_unpacklo_epi8(p[2], p[3]), hi23 = _mm256_unpackhi_epi8(p[2], p[3]);
    const __m256i q0 = _mm256_unpacklo_epi16(lo01, lo23), q1 = _mm256_unpackhi_epi16(lo01, lo23);
    const __m256i q2 = _mm256_unpacklo_epi16(hi01, hi23), q3 = _mm256_unpackhi_epi16(hi01, hi23);
    auto* to = reinterpret_cast<__m256i*>(out + 4 * i);
    _mm256_storeu_si256(to + 0, _mm256_permute2x128_si256(q0, q1, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(q2, q3, 0x20));
    _mm256_storeu_si256(to + 2, _mm256_permute2x128_si256(q0, q1, 0x31));
    _mm256_storeu_si256(to + 3, _mm256_permute2x128_si256(q2, q3, 0x31));
  }
  return i;
}

HEPFEED_TARGET_AVX2 size_t unshuffle8_avx2(const uint8_t* in, uint8_t* out, size_t count) {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    __m128i p[8], q[8], r[8];
    for (int b = 0; b < 8; ++b) p[b] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + b * count + i));
    for (int b = 0; b < 4; ++b) {  // pairs of planes
      q[2 * b] = _mm_unpacklo_epi8(p[2 * b], p[2 * b + 1]);
      q[2 * b + 1] = _mm_unpackhi_epi8(p[2 * b], p[2 * b + 1]);
    }
    for (int half = 0; half < 2; ++half) {  // quadruples, for items 0-7 and 8-15
      r[4 * half + 0] = _mm_unpacklo_epi16(q[half], q[half + 2]);
      r[4 * half + 1] = _mm_unpackhi_epi16(q[half], q[half + 2]);
      r[4 * half + 2] = _mm_unpacklo_epi16(q[half + 4], q[half + 6]);
      r[4 * half + 3] = _mm_unpackhi_epi16(q[half + 4], q[half + 6]);
    }
    auto* to = reinterpret_cast<__m128i*>(out + 8 * i);
    for (int half = 0; half < 2; ++half) {
      for (int part = 0; part < 2; ++part) {
        _mm_storeu_si128(to++, _mm_unpacklo_epi32(r[4 * half + part], r[4 * half + part + 2]));
        _mm_storeu_si128(to++, _mm_unpackhi_epi32(r[4 * half + part], r[4 * half + part + 2]));
      }
    }
  }
  return i;
}

HEPFEED_TARGET_AVX512 size_t unshuffle4_avx512(const uint8_t* in, uint8_t* out, size_t count) {
  size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    __m512i p[4];
    for (int b = 0; b < 4; ++b) p[b] = _mm512_loadu_si512(in + b * count + i);
    const __m512i lo01 = _mm512_unpacklo_epi8(p[0], p[1]), hi01 = _mm512_unpackhi_epi8(p[0], p[1]);
    const __m512i lo23 = _mm512_unpacklo_epi8(p[2], p[3]), hi23 = _mm512_unpackhi_epi8(p[2], p[3]);
    const __m512i q0 = _mm512_unpacklo_epi16(lo01, lo23), q1 = _mm512_unpackhi_epi16(lo01, lo23);
    const __m512i q2 = _mm512_unpacklo_epi16(hi01, hi23), q3 = _mm512_unpackhi_epi16(hi01, hi23);
    // Lane L of q0..q3 holds items 16L..16L+15: transpose the 4 x 4 lanes.
    const __m512i a0 = _mm512_shuffle_i32x4(q0, q1, 0x44), a1 = _mm512_shuffle_i32x4(q2, q3, 0x44);
    const __m512i a2 = _mm512_shuffle_i32x4(q0, q1, 0xee), a3 = _mm512_shuffle_i32x4(q2, q3, 0xee);
    uint8_t* to = out + 4 * i;
    _mm512_storeu_si512(to, _mm512_shuffle_i32x4(a0, a1, 0x88));
    _mm512_storeu_si512(to + 64, _mm512_shuffle_i32x4(a0, a1, 0xdd));
    _mm512_storeu_si512(to + 128, _mm512_shuffle_i32x4(a2, a3, 0x88));
    _mm512_storeu_si512(to + 192, _mm512_shuffle_i32x4(a2, a3, 0xdd));
  }
  return i;
}

#endif

}  // namespace

void unshuffle(const uint8_t* in, uint8_t* out, size_t count, size_t item) {
  size_t done = 0;
  switch (item) {
    case 1:
      std::memcpy(out, in, count);
      return;
    case 2:
#if HEPFEED_X86
      if (isa() >= Isa::avx2) done = unshuffle2_avx2(in, out, count);
#endif
      unshuffle_tail<2>(in, out, done, count);
      return;
    case 4:
#if HEPFEED_X86
      if (isa() >= Isa::avx512)
        done = unshuffle4_avx512(in, out, count);
      else if (isa() == Isa::avx2)
        done = unshuffle4_avx2(in, out, count);
#endif
      unshuffle_tail<4>(in, out, done, count);
      return;
    case 8:
#if HEPFEED_X86
      if (isa() >= Isa::avx2) done = unshuffle8_avx2(in, out, count);
#endif
      unshuffle_tail<8>(in, out, done, count);
      return;
    default:
      unshuffle_any(in, out, count, item);
  }
}

}  // namespace hepfeed
