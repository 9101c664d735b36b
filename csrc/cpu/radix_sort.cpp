#include "cpu/radix_sort.h"

#include <algorithm>

namespace hepfeed {
namespace {

constexpr int kDigitBits = 11;     // 2048 counters of 4 bytes: two such tables fit the first-level cache
constexpr size_t kFewItems = 192;  // below, clearing and summing the counters costs more than comparing

template <class Item>
Item* sort_items(Item* items, Item* scratch, size_t count, int bits) {
  if (count < kFewItems) {
    std::stable_sort(items, items + count,
                     [](const Item& a, const Item& b) { return key_of(a) < key_of(b); });
    return items;
  }
  const int passes = (bits + kDigitBits - 1) / kDigitBits;
  for (int pass = 0; pass < passes; ++pass) {
    // Digits of even width: 20 bits are sorted as 10 + 10, not 11 + 9.
    const int shift = bits * pass / passes, width = bits * (pass + 1) / passes - shift;
    const uint64_t mask = (uint64_t{1} << width) - 1;
    uint32_t place[1 << kDigitBits] = {};
    for (size_t i = 0; i < count; ++i) ++place[key_of(items[i]) >> shift & mask];
    if (place[key_of(items[0]) >> shift & mask] == count) continue;  // one value: nothing to move
    uint32_t total = 0;
    for (uint64_t digit = 0; digit <= mask; ++digit) total += std::exchange(place[digit], total);
    for (size_t i = 0; i < count; ++i) scratch[place[key_of(items[i]) >> shift & mask]++] = items[i];
    std::swap(items, scratch);
  }
  return items;
}

}  // namespace

KeyedRow* radix_sort(KeyedRow* items, KeyedRow* scratch, size_t count, int bits) {
  return sort_items(items, scratch, count, bits);
}

PackedRow* radix_sort(PackedRow* items, PackedRow* scratch, size_t count, int bits) {
  return sort_items(items, scratch, count, bits);
}

}  // namespace hepfeed
