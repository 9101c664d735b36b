#include "cpu/group.h"

#include <algorithm>
#include <memory>

#include "cpu/radix_sort.h"

namespace hepfeed {
namespace {

template <class Item>
size_t group_items(const int64_t* cell, const int64_t* offsets, size_t events, int bits, uint32_t* order,
                   int64_t* starts, int64_t* group_cell, int64_t* group_offsets) {
  size_t longest = 0;
  for (size_t e = 0; e < events; ++e)
    longest = std::max(longest, static_cast<size_t>(offsets[e + 1] - offsets[e]));
  const std::unique_ptr<Item[]> items(new Item[longest]), scratch(new Item[longest]);
  size_t groups = 0, kept = 0;
  starts[0] = group_offsets[0] = 0;
  for (size_t e = 0; e < events; ++e) {
    size_t count = 0;
    int64_t last = -1;
    bool sorted = true;
    // Written first and counted then, here and below: whether a row counts can't be predicted.
    for (int64_t row = offsets[e]; row < offsets[e + 1]; ++row) {
      const bool inside = cell[row] >= 0;
      set_item(items[count], static_cast<uint64_t>(cell[row]), static_cast<uint32_t>(row));
      count += inside;
      sorted &= !inside || cell[row] >= last;
      last = inside ? cell[row] : last;
    }
    const Item* found = sorted ? items.get() : radix_sort(items.get(), scratch.get(), count, bits);
    last = -1;
    for (size_t i = 0; i < count; ++i, ++kept) {
      const auto here = static_cast<int64_t>(key_of(found[i]));
      const size_t place = groups + (here != last);
      starts[place - 1] = here != last ? static_cast<int64_t>(kept) : starts[place - 1];
      group_cell[place - 1] = here;
      groups = place;
      last = here;
      order[kept] = row_of(found[i]);
    }
    group_offsets[e + 1] = static_cast<int64_t>(groups);
  }
  starts[groups] = static_cast<int64_t>(kept);
  return groups;
}

}  // namespace

size_t group_rows(const int64_t* cell, const int64_t* offsets, size_t events, uint64_t cells, uint32_t* order,
                  int64_t* starts, int64_t* group_cell, int64_t* group_offsets) {
  const int bits = bits_of(cells);
  return bits <= 32
             ? group_items<PackedRow>(cell, offsets, events, bits, order, starts, group_cell, group_offsets)
             : group_items<KeyedRow>(cell, offsets, events, bits, order, starts, group_cell, group_offsets);
}

void group_of_rows(const uint32_t* order, const int64_t* starts, const int64_t* group_offsets, size_t events,
                   size_t rows, int64_t* group) {
  std::fill(group, group + rows, int64_t{-1});
  for (size_t e = 0; e < events; ++e)
    for (int64_t g = group_offsets[e]; g < group_offsets[e + 1]; ++g)
      for (int64_t i = starts[g]; i < starts[g + 1]; ++i) group[order[i]] = g - group_offsets[e];
}

}  // namespace hepfeed
