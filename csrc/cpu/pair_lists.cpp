#include "cpu/pair_lists.h"

#include <algorithm>

#include "cpu/clones.h"
#include "cpu/threads.h"

namespace hepfeed {

namespace {

// The first of the pairs first .. last - 1 with an output row of `row` or above; it is near.
int64_t first_from(const int32_t* out, int64_t first, int64_t last, int32_t row) {
  int64_t step = 1;
  while (step < last - first && out[first + step] < row) {
    first += step;
    step *= 2;
  }
  return std::lower_bound(out + first, out + std::min(last, first + step), row) - out;
}

}  // namespace

RowBlocks::RowBlocks(const PairLists& pairs, size_t out_rows, size_t block_rows, int threads)
    : out_rows_(out_rows),
      block_rows_(block_rows),
      blocks_(std::max<size_t>((out_rows + block_rows - 1) / block_rows, 1)),
      starts_(pairs.taps * (blocks_ + 1)) {
  for_blocks(pairs.taps, threads, [&](size_t tap) {
    int64_t* start = starts_.data() + tap * (blocks_ + 1);
    const int64_t last = pairs.offsets[tap + 1];
    start[0] = pairs.offsets[tap];
    for (size_t block = 1; block < blocks_; ++block)
      start[block] = first_from(pairs.out, start[block - 1], last, first_row(block));
    start[blocks_] = last;
  });
}

bool in_order(const PairLists& pairs, PairRange range, size_t in_rows, int32_t first_row, int32_t last_row) {
  const int32_t *in = pairs.in, *out = pairs.out;
  if (range.first == range.last) return true;
  if (out[range.first] < first_row || out[range.last - 1] >= last_row) return false;
  uint32_t bad = 0;
  uint32_t* const result = &bad;
  const auto most = static_cast<uint32_t>(in_rows);
  for_isa([=]() HEPFEED_INLINE {
    uint32_t wrong = static_cast<uint32_t>(in[range.first]) >= most;
    for (int64_t p = range.first + 1; p < range.last; ++p)
      wrong |= (static_cast<uint32_t>(in[p]) >= most) | (out[p] <= out[p - 1]);
    *result = wrong;
  });
  return !bad;
}

bool in_bounds(const PairLists& pairs, PairRange range, size_t in_rows, size_t out_rows) {
  const int32_t *in = pairs.in, *out = pairs.out;
  uint32_t bad = 0;
  uint32_t* const result = &bad;
  const auto in_end = static_cast<uint32_t>(in_rows), out_end = static_cast<uint32_t>(out_rows);
  for_isa([=]() HEPFEED_INLINE {
    uint32_t wrong = 0;
    for (int64_t p = range.first; p < range.last; ++p)
      wrong |= (static_cast<uint32_t>(in[p]) >= in_end) | (static_cast<uint32_t>(out[p]) >= out_end);
    *result = wrong;
  });
  return !bad;
}

BadPair first_bad_pair(const PairLists& pairs, size_t in_rows, size_t out_rows, bool rising) {
  for (size_t tap = 0; tap < pairs.taps; ++tap) {
    for (int64_t p = pairs.offsets[tap]; p < pairs.offsets[tap + 1]; ++p) {
      const bool inside =
          static_cast<uint32_t>(pairs.in[p]) < in_rows && static_cast<uint32_t>(pairs.out[p]) < out_rows;
      const bool rises = !rising || p == pairs.offsets[tap] || pairs.out[p] > pairs.out[p - 1];
      if (!inside || !rises) return {true, p};
    }
  }
  return {};
}

}  // namespace hepfeed
