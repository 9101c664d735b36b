#include "cpu/radix_sort.h"

#include <algorithm>
#include <array>
#include <memory>

#include "cpu/threads.h"

namespace hepfeed {
namespace {

constexpr int kDigitBits = 11;     // 2048 counters of 4 bytes: two such tables fit the first-level cache
constexpr size_t kFewItems = 192;  // below, clearing and summing the counters costs more than comparing

using Places = std::array<uint32_t, 1 << kDigitBits>;

constexpr size_t kFewToShare = 1 << 14;  // items of a block, below which threads cost more than they save

template <class Item>
Item* sort_items(Item* items, Item* scratch, size_t count, int bits, int threads) {
  if (count < kFewItems) {
    std::stable_sort(items, items + count,
                     [](const Item& a, const Item& b) { return key_of(a) < key_of(b); });
    return items;
  }
  // The order of a stable sort is the same for any number of blocks.
  const size_t blocks = std::clamp<size_t>(count / kFewToShare, 1, static_cast<size_t>(std::max(threads, 1)));
  const auto first_of = [&](size_t block) {
    return count / blocks * block + std::min(block, count % blocks);
  };
  const std::unique_ptr<Places[]> places(new Places[blocks]);
  const int passes = (bits + kDigitBits - 1) / kDigitBits;
  for (int pass = 0; pass < passes; ++pass) {
    // Digits of even width: 20 bits are sorted as 10 + 10, not 11 + 9.
    const int shift = bits * pass / passes, width = bits * (pass + 1) / passes - shift;
    const uint64_t mask = (uint64_t{1} << width) - 1;
    for_blocks(blocks, threads, [&](size_t block) {
      Places& place = places[block];
      std::fill_n(place.begin(), mask + 1, 0);
      for (size_t i = first_of(block); i < first_of(block + 1); ++i)
        ++place[key_of(items[i]) >> shift & mask];
    });
    uint32_t total = 0, most = 0;
    for (uint64_t digit = 0; digit <= mask; ++digit) {
      const uint32_t before = total;
      for (size_t block = 0; block < blocks; ++block) total += std::exchange(places[block][digit], total);
      most = std::max(most, total - before);
    }
    if (most == count) continue;  // one value: nothing to move
    for_blocks(blocks, threads, [&](size_t block) {
      Places& place = places[block];
      for (size_t i = first_of(block); i < first_of(block + 1); ++i)
        scratch[place[key_of(items[i]) >> shift & mask]++] = items[i];
    });
    std::swap(items, scratch);
  }
  return items;
}

}  // namespace

KeyedRow* radix_sort(KeyedRow* items, KeyedRow* scratch, size_t count, int bits, int threads) {
  return sort_items(items, scratch, count, bits, threads);
}

PackedRow* radix_sort(PackedRow* items, PackedRow* scratch, size_t count, int bits, int threads) {
  return sort_items(items, scratch, count, bits, threads);
}

}  // namespace hepfeed
