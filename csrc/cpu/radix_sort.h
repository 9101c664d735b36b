// A stable sort by unsigned keys of few bits, least significant digit first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace hepfeed {

// A row with its key; rows of equal keys keep their order.
struct KeyedRow {
  uint64_t key;
  uint32_t row;
};

// As KeyedRow in half the bytes, for keys of at most 32 bits.
struct PackedRow {
  uint64_t key_row;
};

inline uint64_t key_of(const KeyedRow& item) { return item.key; }
inline uint64_t key_of(const PackedRow& item) { return item.key_row >> 32; }
inline uint32_t row_of(const KeyedRow& item) { return item.row; }
inline uint32_t row_of(const PackedRow& item) { return static_cast<uint32_t>(item.key_row); }
inline void set_item(KeyedRow& item, uint64_t key, uint32_t row) { item = {key, row}; }
inline void set_item(PackedRow& item, uint64_t key, uint32_t row) { item.key_row = key << 32 | row; }

// Sorts `count` items, less than 2^32, by key, all keys below 2^bits.  Uses `scratch`, of the same size, and
// returns whichever of the two holds the result.
KeyedRow* radix_sort(KeyedRow* items, KeyedRow* scratch, size_t count, int bits, int threads = 1);
PackedRow* radix_sort(PackedRow* items, PackedRow* scratch, size_t count, int bits, int threads = 1);

// Number of bits that the keys 0 .. count - 1 need.
inline int bits_of(uint64_t count) {
  int bits = 0;
  while (bits < 64 && count > (uint64_t{1} << bits)) ++bits;
  return bits;
}

}  // namespace hepfeed
