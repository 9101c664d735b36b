#include "cpu/philox.h"

#include <algorithm>
#include <cmath>

#include "cpu/vector_math.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

constexpr size_t kWords = 256;

#if HEPFEED_X86
constexpr int kLanes = 8, kVectors = 2;          // two chains of products fill the multipliers
constexpr size_t kTogether = kLanes * kVectors;  // blocks

// GCC 12 takes the undefined operand that its own header gives to unmasked intrinsics for a mistake (bug
// 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"

struct Product {
  __m512i high, low;
};

HEPFEED_TARGET_AVX512 inline HEPFEED_INLINE __m512i same(uint64_t word) {
  return _mm512_set1_epi64(static_cast<int64_t>(word));
}

// x times a number of which the halves are given: no vector instruction makes the upper 64 bits of such a
// product.
HEPFEED_TARGET_AVX512 inline HEPFEED_INLINE Product multiplied(__m512i x, __m512i by_low, __m512i by_high) {
  const __m512i x_high = _mm512_srli_epi64(x, 32), half = _mm512_set1_epi64(0xffffffff);
  const __m512i low = _mm512_mul_epu32(x, by_low), high = _mm512_mul_epu32(x_high, by_high);
  const __m512i first = _mm512_add_epi64(_mm512_mul_epu32(x_high, by_low), _mm512_srli_epi64(low, 32));
  const __m512i second = _mm512_add_epi64(_mm512_mul_epu32(x, by_high), _mm512_and_si512(first, half));
  const __m512i carried = _mm512_add_epi64(_mm512_srli_epi64(first, 32), _mm512_srli_epi64(second, 32));
  return {_mm512_add_epi64(high, carried), _mm512_mask_mov_epi32(low, 0xaaaa, _mm512_slli_epi64(second, 32))};
}

// Word w of 8 blocks is c[w]: writes block after block.
HEPFEED_TARGET_AVX512 inline HEPFEED_INLINE void store_blocks(const __m512i (&c)[4], uint64_t* out) {
  // Pairs of words of even and of odd blocks.
  const __m512i even01 = _mm512_unpacklo_epi64(c[0], c[1]), even23 = _mm512_unpacklo_epi64(c[2], c[3]);
  const __m512i odd01 = _mm512_unpackhi_epi64(c[0], c[1]), odd23 = _mm512_unpackhi_epi64(c[2], c[3]);
  const __m512i front = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const __m512i back = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  for (int half = 0; half < 2; ++half) {
    const __m512i order = half ? back : front;
    const __m512i even = _mm512_permutex2var_epi64(even01, order, even23);
    const __m512i odd = _mm512_permutex2var_epi64(odd01, order, odd23);
    _mm512_storeu_si512(out + 16 * half, _mm512_shuffle_i64x2(even, odd, 0x44));
    _mm512_storeu_si512(out + 16 * half + 8, _mm512_shuffle_i64x2(even, odd, 0xee));
  }
}

// philox_block() of number .. number + kTogether - 1, with which the counter's first word does not overflow.
HEPFEED_TARGET_AVX512 void blocks_avx512(const Stream& stream, uint64_t number, uint64_t* out) {
  const __m512i low[] = {same(kFactors[0] & 0xffffffff), same(kFactors[1] & 0xffffffff)};
  const __m512i high[] = {same(kFactors[0] >> 32), same(kFactors[1] >> 32)};
  __m512i c[kVectors][4];
  for (int v = 0; v < kVectors; ++v) {
    c[v][0] = _mm512_add_epi64(same(stream.counter[0] + number + static_cast<uint64_t>(kLanes * v)),
                               _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    for (int w = 1; w < 4; ++w) c[v][w] = same(stream.counter[w]);
  }
  uint64_t k0 = stream.key[0], k1 = stream.key[1];
  for (int round = 0; round < kRounds; ++round, k0 += kKeySteps[0], k1 += kKeySteps[1])
    for (int v = 0; v < kVectors; ++v) {
      constexpr int kXor = 0x96;  // of three
      const Product a = multiplied(c[v][0], low[0], high[0]), b = multiplied(c[v][2], low[1], high[1]);
      c[v][0] = _mm512_ternarylogic_epi64(b.high, c[v][1], same(k0), kXor);
      c[v][1] = b.low;
      c[v][2] = _mm512_ternarylogic_epi64(a.high, c[v][3], same(k1), kXor);
      c[v][3] = a.low;
    }
  for (int v = 0; v < kVectors; ++v) store_blocks(c[v], out + 4 * kLanes * v);
}
#pragma GCC diagnostic pop
#endif

}  // namespace

void words_of(const Stream& stream, uint64_t first, size_t count, uint64_t* out) {
  const uint64_t number = first / 4 + 1, blocks = (count + 3) / 4;
  uint64_t b = 0;
#if HEPFEED_X86
  if (isa() >= Isa::avx512 && stream.counter[0] <= ~(number + blocks))
    for (; b + kTogether <= blocks; b += kTogether) blocks_avx512(stream, number + b, out + 4 * b);
#endif
  for (; b < blocks; ++b) philox_block(stream, number + b, out + 4 * b);
}

void philox_raw(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                uint64_t* out) {
  for (size_t e = 0; e < events; ++e) {
    const Stream stream = stream_of(key, counters, e);
    const auto count = static_cast<uint64_t>(offsets[e + 1] - offsets[e]);
    uint64_t* to = out + offsets[e];
    words_of(stream, 0, count / 4 * 4, to);
    if (count % 4) {
      uint64_t last[4];
      philox_block(stream, count / 4 + 1, last);
      std::copy(last, last + count % 4, to + count / 4 * 4);
    }
  }
}

void philox_uniform(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                    double low, double high, double* out) {
  const double span = high - low;
  for (size_t e = 0; e < events; ++e) {
    const Stream stream = stream_of(key, counters, e);
    const auto count = static_cast<uint64_t>(offsets[e + 1] - offsets[e]);
    double* to = out + offsets[e];
    uint64_t words[kWords];
    for (uint64_t i = 0; i < count; i += kWords) {
      const size_t some = std::min<uint64_t>(kWords, count - i);
      words_of(stream, i, some, words);
      for_isa([=, at = to + i, from = words]() HEPFEED_INLINE {
        for (size_t k = 0; k < some; ++k) at[k] = low + span * unit_of(from[k]);
      });
    }
  }
}

void normals_of(const Stream& stream, uint64_t first, double* out) {
  constexpr size_t kPairs = kNormals / 2;
  uint64_t buffer[kNormals];
  words_of(stream, first, kNormals, buffer);
  double x_buffer[kPairs], y_buffer[kPairs];
  for_isa([=, x = x_buffer, y = y_buffer, words = buffer]() HEPFEED_INLINE {
    for (size_t j = 0; j < kPairs; ++j) {
      const double radius = std::sqrt(-2.0 * log_of_regular(1.0 - unit_of(words[2 * j])));
      double sine, cosine;
      turn_of(unit_of(words[2 * j + 1]), &sine, &cosine);
      x[j] = radius * cosine;
      y[j] = radius * sine;
    }
    for (size_t j = 0; j < kPairs; ++j) {
      out[2 * j] = x[j];
      out[2 * j + 1] = y[j];
    }
  });
}

void few_normals_of(const Stream& stream, uint64_t first, double* out) {
  uint64_t words[4];
  philox_block(stream, first / 4 + 1, words);
  for (int j = 0; j < 4; j += 2) {
    const double radius = std::sqrt(-2.0 * log_of_regular(1.0 - unit_of(words[j])));
    double sine, cosine;
    turn_of(unit_of(words[j + 1]), &sine, &cosine);
    out[j] = radius * cosine;
    out[j + 1] = radius * sine;
  }
}

void philox_normal(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                   double* out) {
  for (size_t e = 0; e < events; ++e) {
    const Stream stream = stream_of(key, counters, e);
    const auto count = static_cast<uint64_t>(offsets[e + 1] - offsets[e]);
    double* to = out + offsets[e];
    uint64_t i = 0;
    for (; i + kNormals <= count; i += kNormals) normals_of(stream, i, to + i);
    // A rest of one or two is what most steps ask for: without the vectors.
    for (; i < count; i += 4) {
      double made[4];
      few_normals_of(stream, i, made);
      std::copy(made, made + std::min<uint64_t>(4, count - i), to + i);
    }
  }
}

}  // namespace hepfeed
