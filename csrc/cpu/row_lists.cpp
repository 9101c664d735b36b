#include "cpu/row_lists.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/clones.h"

namespace hepfeed {
namespace {

// Throws where one of `count` numbers, of which the first is `name` `first`, is not in 0 .. rows - 1.
void require_rows(const int32_t* numbers, size_t first, size_t count, size_t rows, const char* name) {
  numbers += first;
  uint32_t largest = 0;  // of the numbers as unsigned ones, so that those below 0 are too large
  for_isa([&]() HEPFEED_INLINE {
    for (size_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<uint32_t>(numbers[i]));
  });
  if (count == 0 || largest < rows) return;
  for (size_t i = 0; i < count; ++i)
    if (static_cast<uint32_t>(numbers[i]) >= rows)
      throw std::invalid_argument(std::string(name) + " " + std::to_string(first + i) + " must be one of " +
                                  std::to_string(rows) + " rows, not " + std::to_string(numbers[i]));
}

}  // namespace

std::vector<Piece> long_pieces(const RowLists& lists) {
  if (lists.starts[0] != 0 || lists.starts[lists.count] != static_cast<int64_t>(lists.entries))
    throw std::invalid_argument("starts must go from 0 to " + std::to_string(lists.entries) + ", not from " +
                                std::to_string(lists.starts[0]) + " to " +
                                std::to_string(lists.starts[lists.count]));
  std::vector<Piece> pieces;
  for (size_t o = 0; o < lists.count; ++o) {
    const int64_t start = lists.starts[o], end = lists.starts[o + 1];
    if (end < start) throw std::invalid_argument("starts must not fall, as at " + std::to_string(o + 1));
    const auto first = static_cast<size_t>(start), last = static_cast<size_t>(end);
    if (last - first <= kEntriesOfPiece) continue;
    if (last > lists.entries)  // before a fall that is still to come
      throw std::invalid_argument("starts must not be above the number of entries, as at " +
                                  std::to_string(o + 1));
    for (size_t from = first; from < last; from += kEntriesOfPiece)
      pieces.push_back({o, from, std::min(from + kEntriesOfPiece, last)});
  }
  return pieces;
}

void check_columns(const RowLists& lists, size_t first, size_t last, size_t rows) {
  const auto from = static_cast<size_t>(lists.starts[first]), to = static_cast<size_t>(lists.starts[last]);
  require_rows(lists.columns, from, to - from, rows, "column");
}

void check_places(const RowLists& lists, size_t first, size_t last, const int32_t* places) {
  const auto from = static_cast<size_t>(lists.starts[first]), to = static_cast<size_t>(lists.starts[last]);
  require_rows(places, from, to - from, lists.entries, "place");
}

void list_rows(const int32_t* target, const int32_t* source, size_t pairs, size_t targets, size_t sources,
               int64_t* starts, int32_t* columns, int32_t* places) {
  require_rows(target, 0, pairs, targets, "target");
  require_rows(source, 0, pairs, sources, "source");
  std::fill_n(starts, targets + 1, 0);
  for (size_t p = 0; p < pairs; ++p) ++starts[target[p] + 1];
  for (size_t o = 0; o < targets; ++o) starts[o + 1] += starts[o];
  std::vector<int64_t> next(starts, starts + targets);
  for (size_t p = 0; p < pairs; ++p) {
    const int64_t place = next[static_cast<size_t>(target[p])]++;
    columns[place] = source[p];
    if (places) places[place] = static_cast<int32_t>(p);
  }
}

}  // namespace hepfeed
