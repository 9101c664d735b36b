#include "cpu/pack_cells.h"

#include "cpu/clones.h"
#include "cpu/unaligned.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

constexpr size_t kLine = 64;    // bytes that are tested for a bit at once
constexpr size_t kBlock = 128;  // items: as many as a count of one byte holds

// Items with a bit set among the first `count`, at most 255.
template <class T>
HEPFEED_INLINE inline size_t count_block(const uint8_t* data, size_t count) {
  T found = 0;  // as wide as the items, so that the loop needs no conversions
  for (size_t i = 0; i < count; ++i) found = static_cast<T>(found + (load<T>(data, i) != 0));
  return found;
}

template <>
HEPFEED_INLINE inline size_t count_block<Wide>(const uint8_t* data, size_t count) {
  size_t found = 0;
  for (size_t i = 0; i < count; ++i) found += any_bit(load<Wide>(data, i));
  return found;
}

HEPFEED_INLINE inline bool line_has_bit(const uint8_t* line) {
  uint64_t bits = 0;
  for (size_t i = 0; i < kLine / sizeof(uint64_t); ++i) bits |= load<uint64_t>(line, i);
  return bits != 0;
}

template <class Cell, class Item>
struct Packer {
  uint8_t* cells;
  uint8_t* values;
  size_t packed = 0;

  // Items first .. first + count - 1 of an event, at most a line.
  HEPFEED_INLINE void line(const uint8_t* items, size_t first, size_t count) {
    uint8_t lanes[kLine + 1];
    size_t found = 0;
    for (size_t i = 0; i < count; ++i) {  // which items have a bit can't be predicted: no branch
      lanes[found] = static_cast<uint8_t>(i);
      found += any_bit(load<Item>(items, i));
    }
    for (size_t i = 0; i < found; ++i, ++packed) {
      store(cells, packed, static_cast<Cell>(first + lanes[i]));
      store(values, packed, load<Item>(items, lanes[i]));
    }
  }

#if HEPFEED_X86
  // Does whole lines of items of 4 bytes: what is written too much is written over, or lies in the room
  // behind. Returns how many items it did.
  HEPFEED_TARGET_AVX512 size_t lines_avx512(const uint8_t* image, size_t volume) {
    constexpr size_t kItems = kLine / 4;
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    size_t i = 0;
    for (; i + kItems <= volume; i += kItems) {
      const __m512i items = _mm512_loadu_si512(image + i * 4);
      const __mmask16 set = _mm512_test_epi32_mask(items, items);
      if (!set) continue;
      const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(i)));
      const __m512i found = _mm512_maskz_compress_epi32(set, numbers);
      uint8_t* to = cells + packed * sizeof(Cell);
      if constexpr (sizeof(Cell) == 2) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(found));
      } else if constexpr (sizeof(Cell) == 4) {
        _mm512_storeu_si512(to, found);
      } else {
        _mm512_storeu_si512(to, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(found)));
        _mm512_storeu_si512(to + kLine, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(found, 1)));
      }
      _mm512_storeu_si512(values + packed * 4, _mm512_maskz_compress_epi32(set, items));
      packed += static_cast<size_t>(__builtin_popcount(set));
    }
    return i;
  }
#endif

  // As many whole lines as there is a faster way for; returns how many items it did.
  HEPFEED_INLINE size_t lines(const uint8_t* image, size_t volume) {
    size_t i = 0;
#if HEPFEED_X86
    if constexpr (sizeof(Item) == 4) {
      if (isa() >= Isa::avx512 && volume <= UINT32_MAX) i = lines_avx512(image, volume);
    }
#else
    (void)image, (void)volume;
#endif
    return i;
  }

  HEPFEED_INLINE void event(const uint8_t* image, size_t volume) {
    constexpr size_t kItems = kLine / sizeof(Item);
    size_t i = lines(image, volume);
    for (; i + kItems <= volume; i += kItems) {
      const uint8_t* items = image + i * sizeof(Item);
      if (line_has_bit(items)) line(items, i, kItems);
    }
    line(image + i * sizeof(Item), i, volume - i);
  }
};

// With Dims, for that number of axes alone; 0 for any.
template <class Cell, size_t Dims>
size_t ravel(const int32_t* indices, size_t rows, const int64_t* shape, size_t any_dims, uint8_t* cells) {
  const size_t dims = Dims ? Dims : any_dims;
  for (size_t i = 0; i < rows; ++i) {
    const int32_t* site = indices + i * (1 + dims) + 1;
    uint64_t cell = 0;
    bool inside = true;
    for (size_t d = 0; d < dims; ++d) {
      const auto x = static_cast<uint64_t>(int64_t{site[d]});  // below 0: beyond every extent
      inside &= x < static_cast<uint64_t>(shape[d]);
      cell = cell * static_cast<uint64_t>(shape[d]) + x;
    }
    if (!inside) return i;
    store(cells, i, static_cast<Cell>(cell));
  }
  return rows;
}

}  // namespace

void count_cells(const ImageBlock& images, int64_t* counts) {
  with_item_type(images.item_bytes, [&](auto zero) {
    using Item = decltype(zero);
    for_isa([&]() HEPFEED_INLINE {
      for (size_t e = 0; e < images.events; ++e) {
        const uint8_t* image = images.data + e * images.volume * sizeof(Item);
        size_t found = 0, i = 0;
        for (; i + kBlock <= images.volume; i += kBlock)
          found += count_block<Item>(image + i * sizeof(Item), kBlock);
        counts[e] =
            static_cast<int64_t>(found + count_block<Item>(image + i * sizeof(Item), images.volume - i));
      }
    });
  });
}

size_t pack_image(const ImageBlock& images, size_t e, size_t cell_bytes, uint8_t* cells, uint8_t* values) {
  return with_cell_type(cell_bytes, [&](auto cell) {
    return with_item_type(images.item_bytes, [&](auto item) {
      Packer<decltype(cell), decltype(item)> packer{cells, values};
      const uint8_t* image = images.data + e * images.volume * sizeof(item);
      for_isa([&]() HEPFEED_INLINE { packer.event(image, images.volume); });
      return packer.packed;
    });
  });
}

size_t ravel_sites(const int32_t* indices, size_t rows, const int64_t* shape, size_t dims, size_t cell_bytes,
                   uint8_t* cells) {
  return with_cell_type(cell_bytes, [&](auto zero) {
    using Cell = decltype(zero);
    if (dims == 2) return ravel<Cell, 2>(indices, rows, shape, dims, cells);
    if (dims == 3) return ravel<Cell, 3>(indices, rows, shape, dims, cells);
    return ravel<Cell, 0>(indices, rows, shape, dims, cells);
  });
}

}  // namespace hepfeed
