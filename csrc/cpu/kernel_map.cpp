#include "cpu/kernel_map.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "cpu/radix_sort.h"

namespace hepfeed {

size_t Convolution::taps() const {
  size_t taps = 1;
  for (const int64_t size : kernel) taps *= static_cast<size_t>(size);
  return taps;
}

std::unique_ptr<int64_t[]> rising_numbers(const SiteRows& sites, const int32_t* order,
                                          const Numbering& numbering, int threads) {
  std::unique_ptr<int64_t[]> numbers(new int64_t[sites.count + kNumbersWindow]);
  const SiteFaults faults = number_sites(sites, order, numbering, numbers.get(), threads);
  if (faults.outside < sites.count) throw std::invalid_argument("a site is outside of the shape");
  if (faults.unsorted < sites.count) throw std::invalid_argument("sites are not in order and unique");
  std::fill_n(numbers.get() + sites.count, kNumbersWindow, kNumbersEnd);
  return numbers;
}

std::vector<int64_t> offsets_of(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> offsets(sizes.size() + 1);
  std::partial_sum(sizes.begin(), sizes.end(), offsets.begin() + 1);
  return offsets;
}

void place_blocks(const std::vector<PairBlock*>& blocks, const std::vector<int64_t>& offsets, size_t taps) {
  std::vector<size_t> next(offsets.begin(), offsets.begin() + static_cast<std::ptrdiff_t>(taps));
  for (PairBlock* block : blocks) {
    block->place = next;
    for (size_t tap = 0; tap < taps; ++tap) next[tap] += block->starts[tap + 1] - block->starts[tap];
  }
}

void sort_pairs(const int32_t* key, const int32_t* value, size_t count, size_t rows, int32_t* key_out,
                int32_t* value_out) {
  constexpr size_t kFew = 4;  // rows for each pair, above which the passes of a radix sort cost less
  if (count * kFew < rows) {
    const std::unique_ptr<PackedRow[]> items(new PackedRow[count]), scratch(new PackedRow[count]);
    for (size_t i = 0; i < count; ++i)
      set_item(items[i], static_cast<uint32_t>(key[i]), static_cast<uint32_t>(value[i]));
    const PackedRow* sorted = radix_sort(items.get(), scratch.get(), count, bits_of(rows));
    for (size_t i = 0; i < count; ++i) {
      key_out[i] = static_cast<int32_t>(key_of(sorted[i]));
      value_out[i] = static_cast<int32_t>(row_of(sorted[i]));
    }
    return;
  }
  // Each value is put at its row, and what rows hold is listed.
  std::vector<int32_t> held(rows, -1);
  for (size_t i = 0; i < count; ++i) held[static_cast<size_t>(key[i])] = value[i];
  size_t kept = 0;
  for (size_t row = 0; kept < count; ++row) {
    key_out[kept] = static_cast<int32_t>(row);
    value_out[kept] = held[row];
    kept += held[row] >= 0;
  }
}

}  // namespace hepfeed
