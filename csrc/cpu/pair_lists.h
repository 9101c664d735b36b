// The pairs of a kernel map, as its convolution reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hepfeed {

// Pairs (in row, out row); those of tap k are offsets[k] .. offsets[k + 1] - 1, and their output rows rise
// strictly.  Borrowed.
struct PairLists {
  const int32_t *in, *out;
  const int64_t* offsets;  // (taps + 1), from 0 on, never falling
  size_t taps;
};

// Whether some pair has a row out of bounds or an output row that is not above the one before it in its tap,
// and the number of the first such pair.
struct BadPair {
  bool found = false;
  int64_t pair = 0;
};

// Pairs first .. last - 1 of one tap.
struct PairRange {
  int64_t first, last;
};

// The pairs of each tap by blocks of output rows.  Every pair is in one range of its tap; where output rows
// do not rise, in_order() is false for some range.
class RowBlocks {
 public:
  RowBlocks(const PairLists& pairs, size_t out_rows, size_t block_rows, int threads);

  // One at least, so that pairs of no rows are looked at too.
  size_t blocks() const { return blocks_; }
  int32_t first_row(size_t block) const { return static_cast<int32_t>(block * block_rows_); }
  int32_t last_row(size_t block) const {
    return static_cast<int32_t>(block + 1 < blocks_ ? (block + 1) * block_rows_ : out_rows_);
  }
  PairRange range(size_t tap, size_t block) const {
    const int64_t* start = starts_.data() + tap * (blocks_ + 1) + block;
    return {start[0], start[1]};
  }

 private:
  size_t out_rows_, block_rows_, blocks_;
  std::vector<int64_t> starts_;  // (taps, blocks + 1)
};

// True where the output rows of the pairs rise strictly within first_row .. last_row - 1 and input rows are
// below in_rows.
bool in_order(const PairLists& pairs, PairRange range, size_t in_rows, int32_t first_row, int32_t last_row);

// True where rows are in bounds, output rows in any order.
bool in_bounds(const PairLists& pairs, PairRange range, size_t in_rows, size_t out_rows);

// The first pair that is bad; `rising` says whether output rows must rise.
BadPair first_bad_pair(const PairLists& pairs, size_t in_rows, size_t out_rows, bool rising);

}  // namespace hepfeed
