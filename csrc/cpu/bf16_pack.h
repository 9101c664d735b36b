// Sixteen columns of bfloat16 in the order of `Product::right`, in registers.
#pragma once

#include "cpu/bf16_product.h"

#if HEPFEED_X86

#include <immintrin.h>

namespace hepfeed {

// The lowest `count` bits, at most 32.
inline uint32_t low_bits(size_t count) { return static_cast<uint32_t>((uint64_t{1} << count) - 1); }

// How many of `count` items lie in the block of `size` that begins with `first`.
inline size_t items_of_block(size_t count, size_t first, size_t size) {
  return count - first < size ? count - first : size;
}

// Columns (even[c], odd[c]) of two rows of which the columns in `mask` are there; the others are zero.
HEPFEED_TARGET_AVX512_BF16 inline __m512i pair_rows(const bfloat16* even, const bfloat16* odd, __mmask16 mask,
                                                    __mmask16 odd_mask) {
  const __m256i low = _mm256_maskz_loadu_epi16(mask, even), high = _mm256_maskz_loadu_epi16(odd_mask, odd);
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

// The transpose of 16 x 16 items of 32 bits.
HEPFEED_TARGET_AVX512_BF16 inline void transpose(__m512i (&rows)[16]) {
  __m512i next[16];
  for (int i = 0; i < 16; i += 2) {
    next[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    next[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(next[i], next[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(next[i], next[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(next[i + 1], next[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(next[i + 1], next[i + 3]);
  }
  // Now lane l of rows[4 i + j] has the items (4 i .. 4 i + 3, 4 l + j).
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd);
    const __m512i d = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
    next[j] = _mm512_shuffle_i32x4(a, b, 0x88);
    next[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
    next[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
    next[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = next[i];
}

}  // namespace hepfeed

#endif
