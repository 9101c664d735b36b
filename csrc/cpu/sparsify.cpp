#include "cpu/sparsify.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "cpu/clones.h"
#include "cpu/number_types.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

constexpr size_t kLanes = 64;  // items of one mask

inline float plain(Half value) { return half_to_float(value.bits); }
template <class T>
inline T plain(T value) {
  return value;
}

template <class T>
using Plain = decltype(plain(T{}));

// Which items are active: those not in [low, high].
template <class T>
struct Rule {
  Plain<T> low, high;
  bool all;  // whatever they are

  Rule(double threshold, bool absolute) : all(false) {
    if constexpr (std::is_floating_point_v<Plain<T>>) {
      double rounded = threshold;
      if constexpr (std::is_same_v<T, Half>) {
        uint16_t half;
        convert(reinterpret_cast<const uint8_t*>(&threshold), Type::f64, reinterpret_cast<uint8_t*>(&half),
                Type::f16, 1);
        rounded = half_to_float(half);
      }
      high = static_cast<Plain<T>>(rounded);
      low = absolute ? -high : -std::numeric_limits<Plain<T>>::infinity();
    } else {
      using Limits = std::numeric_limits<Plain<T>>;
      // 2^63 and 2^64 are what the largest 64-bit numbers round to: nothing is above.
      const double whole = std::floor(threshold), top = static_cast<double>(Limits::max());
      all = whole < static_cast<double>(Limits::min());
      high = whole >= top ? Limits::max() : all ? Limits::min() : static_cast<Plain<T>>(whole);
      low = Limits::min();
      if constexpr (std::is_signed_v<Plain<T>>)
        if (absolute)
          low = static_cast<Plain<T>>(whole >= -static_cast<double>(Limits::min()) ? Limits::min() : -high);
    }
  }

  bool active(T item) const {
    const Plain<T> value = plain(item);
    return all || !(value >= low && value <= high);
  }
};

template <class T>
uint64_t mask_of(const T* items, size_t count, const Rule<T>& rule) {
  uint64_t mask = 0;
  for (size_t j = 0; j < count; ++j) mask |= static_cast<uint64_t>(rule.active(items[j])) << j;
  return mask;
}

#if HEPFEED_X86

// Masks of 64 items.  NaN is active: comparisons are "not less or equal" and "not greater or equal",
// unordered.

HEPFEED_TARGET_AVX512 inline uint64_t mask_avx512(const float* items, const Rule<float>& rule) {
  const __m512 low = _mm512_set1_ps(rule.low), high = _mm512_set1_ps(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 4; ++part) {
    const __m512 x = _mm512_loadu_ps(items + 16 * part);
    const __mmask16 out = static_cast<__mmask16>(_mm512_cmp_ps_mask(x, high, _CMP_NLE_UQ) |
                                                 _mm512_cmp_ps_mask(x, low, _CMP_NGE_UQ));
    mask |= static_cast<uint64_t>(out) << (16 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX512 inline uint64_t mask_avx512(const Half* items, const Rule<Half>& rule) {
  const __m512 low = _mm512_set1_ps(rule.low), high = _mm512_set1_ps(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 4; ++part) {
    const __m512 x = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(items + 16 * part)));
    const __mmask16 out = static_cast<__mmask16>(_mm512_cmp_ps_mask(x, high, _CMP_NLE_UQ) |
                                                 _mm512_cmp_ps_mask(x, low, _CMP_NGE_UQ));
    mask |= static_cast<uint64_t>(out) << (16 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX512 inline uint64_t mask_avx512(const double* items, const Rule<double>& rule) {
  const __m512d low = _mm512_set1_pd(rule.low), high = _mm512_set1_pd(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 8; ++part) {
    const __m512d x = _mm512_loadu_pd(items + 8 * part);
    const __mmask8 out = static_cast<__mmask8>(_mm512_cmp_pd_mask(x, high, _CMP_NLE_UQ) |
                                               _mm512_cmp_pd_mask(x, low, _CMP_NGE_UQ));
    mask |= static_cast<uint64_t>(out) << (8 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX512 inline uint64_t mask_avx512(const uint8_t* items, const Rule<uint8_t>& rule) {
  const __m512i x = _mm512_loadu_si512(items);
  return _mm512_cmpgt_epu8_mask(x, _mm512_set1_epi8(static_cast<char>(rule.high)));
}

HEPFEED_TARGET_AVX512 inline uint64_t mask_avx512(const uint16_t* items, const Rule<uint16_t>& rule) {
  const __m512i high = _mm512_set1_epi16(static_cast<short>(rule.high));
  const uint64_t lower = _mm512_cmpgt_epu16_mask(_mm512_loadu_si512(items), high);
  return lower | static_cast<uint64_t>(_mm512_cmpgt_epu16_mask(_mm512_loadu_si512(items + 32), high)) << 32;
}

HEPFEED_TARGET_AVX512 inline uint64_t mask_avx512(const int16_t* items, const Rule<int16_t>& rule) {
  const __m512i low = _mm512_set1_epi16(rule.low), high = _mm512_set1_epi16(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 2; ++part) {
    const __m512i x = _mm512_loadu_si512(items + 32 * part);
    const __mmask32 out = _mm512_cmpgt_epi16_mask(x, high) | _mm512_cmplt_epi16_mask(x, low);
    mask |= static_cast<uint64_t>(out) << (32 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX512 inline uint64_t mask_avx512(const int32_t* items, const Rule<int32_t>& rule) {
  const __m512i low = _mm512_set1_epi32(rule.low), high = _mm512_set1_epi32(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 4; ++part) {
    const __m512i x = _mm512_loadu_si512(items + 16 * part);
    const __mmask16 out =
        static_cast<__mmask16>(_mm512_cmpgt_epi32_mask(x, high) | _mm512_cmplt_epi32_mask(x, low));
    mask |= static_cast<uint64_t>(out) << (16 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX2 inline uint64_t mask_avx2(const float* items, const Rule<float>& rule) {
  const __m256 low = _mm256_set1_ps(rule.low), high = _mm256_set1_ps(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 8; ++part) {
    const __m256 x = _mm256_loadu_ps(items + 8 * part);
    const __m256 out = _mm256_or_ps(_mm256_cmp_ps(x, high, _CMP_NLE_UQ), _mm256_cmp_ps(x, low, _CMP_NGE_UQ));
    mask |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(out))) << (8 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX2 inline uint64_t mask_avx2(const Half* items, const Rule<Half>& rule) {
  const __m256 low = _mm256_set1_ps(rule.low), high = _mm256_set1_ps(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 8; ++part) {
    const __m256 x = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(items + 8 * part)));
    const __m256 out = _mm256_or_ps(_mm256_cmp_ps(x, high, _CMP_NLE_UQ), _mm256_cmp_ps(x, low, _CMP_NGE_UQ));
    mask |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(out))) << (8 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX2 inline uint64_t mask_avx2(const double* items, const Rule<double>& rule) {
  const __m256d low = _mm256_set1_pd(rule.low), high = _mm256_set1_pd(rule.high);
  uint64_t mask = 0;
  for (int part = 0; part < 16; ++part) {
    const __m256d x = _mm256_loadu_pd(items + 4 * part);
    const __m256d out = _mm256_or_pd(_mm256_cmp_pd(x, high, _CMP_NLE_UQ), _mm256_cmp_pd(x, low, _CMP_NGE_UQ));
    mask |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_pd(out))) << (4 * part);
  }
  return mask;
}

HEPFEED_TARGET_AVX2 inline uint64_t mask_avx2(const uint8_t* items, const Rule<uint8_t>& rule) {
  const __m256i high = _mm256_set1_epi8(static_cast<char>(rule.high));
  uint64_t mask = 0;
  for (int part = 0; part < 2; ++part) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(items + 32 * part));
    const __m256i in = _mm256_cmpeq_epi8(_mm256_max_epu8(x, high), high);
    mask |= static_cast<uint64_t>(~static_cast<uint32_t>(_mm256_movemask_epi8(in))) << (32 * part);
  }
  return mask;
}

template <class T>
constexpr bool kHasAvx512 =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, Half> ||
    std::is_same_v<T, uint8_t> || std::is_same_v<T, uint16_t> || std::is_same_v<T, int16_t> ||
    std::is_same_v<T, int32_t>;
template <class T>
constexpr bool kHasAvx2 = std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, Half> ||
                          std::is_same_v<T, uint8_t>;

// masks[w] |= mask of items 64 w .. 64 w + 63.
template <class T>
HEPFEED_TARGET_AVX512 void whole_masks_avx512(const T* items, size_t words, const Rule<T>& rule,
                                              uint64_t* masks) {
  for (size_t w = 0; w < words; ++w) masks[w] |= mask_avx512(items + kLanes * w, rule);
}

template <class T>
HEPFEED_TARGET_AVX2 void whole_masks_avx2(const T* items, size_t words, const Rule<T>& rule,
                                          uint64_t* masks) {
  for (size_t w = 0; w < words; ++w) masks[w] |= mask_avx2(items + kLanes * w, rule);
}

#endif

// masks[i / 64] bit i % 64 |= whether item i is active.
template <class T>
void add_masks(const T* items, size_t count, const Rule<T>& rule, uint64_t* masks) {
  const size_t words = count / kLanes;
  size_t done = 0;
#if HEPFEED_X86
  if constexpr (kHasAvx512<T>) {
    if (!rule.all && isa() >= Isa::avx512) whole_masks_avx512(items, done = words, rule, masks);
  }
  if constexpr (kHasAvx2<T>) {
    if (!rule.all && isa() == Isa::avx2) whole_masks_avx2(items, done = words, rule, masks);
  }
#endif
  for (size_t w = done; w < words; ++w) masks[w] |= mask_of(items + kLanes * w, kLanes, rule);
  if (count % kLanes) masks[words] |= mask_of(items + kLanes * words, count % kLanes, rule);
}

template <class T, class Feature>
struct Sparsifier {
  const Images& images;
  Rule<T> rule;
  int64_t* site;
  Feature* features;
  size_t found = 0;

  HEPFEED_INLINE void emit(size_t number, const T* items, size_t stride) {
    site[found] = static_cast<int64_t>(number);
    if (images.channels == 1) {
      features[found++] = static_cast<Feature>(plain(*items));
      return;
    }
    for (size_t c = 0; c < images.channels; ++c)
      features[found * images.channels + c] = static_cast<Feature>(plain(items[c * stride]));
    ++found;
  }

  // The sites of 64 items of one channel.  Some are written whether they are active or not: how many are
  // can't be predicted, and what is too much is written over.
  HEPFEED_INLINE void emit_word(size_t number, const T* items, uint64_t mask) {
    constexpr int kAtOnce = 4;
    const auto active = static_cast<size_t>(__builtin_popcountll(mask));
    for (int i = 0; i < kAtOnce; ++i) {
      const auto lane = static_cast<size_t>(__builtin_ctzll(mask | uint64_t{1} << 63));
      site[found + static_cast<size_t>(i)] = static_cast<int64_t>(number + lane);
      features[found + static_cast<size_t>(i)] = static_cast<Feature>(plain(items[lane]));
      mask &= mask - 1;
    }
    size_t more = found + kAtOnce;
    for (; mask; mask &= mask - 1, ++more) {
      const auto lane = static_cast<size_t>(__builtin_ctzll(mask));
      site[more] = static_cast<int64_t>(number + lane);
      features[more] = static_cast<Feature>(plain(items[lane]));
    }
    found += active;
  }

  // Sites first .. first + count - 1, all of one outer index.
  void block(size_t first, size_t count) {
    const T* data = static_cast<const T*>(images.data);
    const size_t inner = images.inner, channels = images.channels;
    const T* items = data + first / inner * channels * inner + first % inner;
    uint64_t masks[kSparsifyBlock / kLanes] = {};
    for (size_t c = 0; c < channels; ++c) add_masks(items + c * inner, count, rule, masks);
    const size_t whole = channels == 1 ? count / kLanes : 0;
    for_isa([&]() HEPFEED_INLINE {
      for (size_t w = 0; w < whole; ++w)
        if (masks[w]) emit_word(first + w * kLanes, items + w * kLanes, masks[w]);
    });
    for (size_t w = whole; w * kLanes < count; ++w) {
      for (uint64_t mask = masks[w]; mask; mask &= mask - 1) {
        const size_t i = w * kLanes + static_cast<size_t>(__builtin_ctzll(mask));
        emit(first + i, items + i, inner);
      }
    }
  }

  // Sites first .. first + count - 1 of images whose channels lie together: count * channels items.
  void block_channels_last(size_t first, size_t count) {
    const size_t channels = images.channels;
    const T* items = static_cast<const T*>(images.data) + first * channels;
    uint64_t masks[kSparsifyBlock / kLanes] = {};
    add_masks(items, count * channels, rule, masks);
    size_t last = count;
    for (size_t w = 0; w * kLanes < count * channels; ++w) {
      for (uint64_t mask = masks[w]; mask; mask &= mask - 1) {
        const size_t i = (w * kLanes + static_cast<size_t>(__builtin_ctzll(mask))) / channels;
        if (i != last) emit(first + i, items + i * channels, 1);
        last = i;
      }
    }
  }

  void run(size_t* next, size_t room) {
    const size_t sites = images.outer * images.inner;
    const bool last = images.inner == 1 && images.channels <= kSparsifyBlock;
    const size_t longest = last ? kSparsifyBlock / images.channels : kSparsifyBlock;
    while (*next < sites && found + kSparsifyBlock <= room) {
      const size_t left = last ? sites - *next : images.inner - *next % images.inner;
      const size_t count = std::min(longest, left);
      last ? block_channels_last(*next, count) : block(*next, count);
      *next += count;
    }
  }
};

template <class T>
size_t sparsify_items(const Images& images, double threshold, bool absolute, size_t* next, size_t room,
                      int64_t* site, void* features, Type feature_type) {
  const Rule<T> rule(threshold, absolute);
  if (feature_type == Type::f64) {
    Sparsifier<T, double> sparsifier{images, rule, site, static_cast<double*>(features)};
    sparsifier.run(next, room);
    return sparsifier.found;
  }
  Sparsifier<T, float> sparsifier{images, rule, site, static_cast<float*>(features)};
  sparsifier.run(next, room);
  return sparsifier.found;
}

}  // namespace

size_t sparsify(const Images& images, double threshold, bool absolute, size_t* next, size_t room,
                int64_t* site, void* features, Type feature_type) {
  const auto run = [&](auto zero) {
    return sparsify_items<decltype(zero)>(images, threshold, absolute, next, room, site, features,
                                          feature_type);
  };
  return with_number_type(images.type, "items without a number type have no threshold", run);
}

}  // namespace hepfeed
