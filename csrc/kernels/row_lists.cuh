// Lists of rows: which rows of one matrix belong to each row of another; see cpu/row_lists.h.
#pragma once

#include <cstdint>

#include "port.h"

namespace hepfeed::device {

// List o has the rows columns[starts[o]] .. columns[starts[o + 1] - 1].
//
// Kernels take no number of a list on trust: a range is cut to the entries that there are, and a column that
// is no row is left out.
struct RowLists {
  const int64_t* starts;   // (count + 1)
  const int32_t* columns;  // (entries)
  int64_t count, entries;

  __device__ __forceinline__ int64_t first(int64_t list) const {
    const int64_t start = starts[list];
    return start < 0 ? 0 : start;
  }

  __device__ __forceinline__ int64_t last(int64_t list) const {
    const int64_t end = starts[list + 1];
    return end > entries ? entries : end;
  }
};

// What inspect_pairs() finds out, added up.
constexpr int kTargetOutside = 1, kSourceOutside = 2, kTargetsFall = 4, kSourcesFall = 8;

// Sets bits of `found`, which is 0 before: whether a target or a source is no row, and whether they fall
// anywhere, so that they must be sorted.
__global__ void __launch_bounds__(256)
    inspect_pairs(const int32_t* targets, const int32_t* sources, int64_t pairs, int64_t target_rows,
                  int64_t source_rows, int* found) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  int bits = 0;
  if (p < pairs) {
    const int32_t target = targets[p], source = sources[p];
    if (static_cast<uint32_t>(target) >= target_rows) bits |= kTargetOutside;
    if (static_cast<uint32_t>(source) >= source_rows) bits |= kSourceOutside;
    if (p > 0 && targets[p - 1] > target) bits |= kTargetsFall;
    if (p > 0 && sources[p - 1] > source) bits |= kSourcesFall;
  }
  int all = 0;
  for (int bit = 1; bit <= kSourcesFall; bit *= 2)
    if (__syncthreads_or(bits & bit)) all |= bit;
  if (all && threadIdx.x == 0) atomicOr(found, all);
}

// starts[o] = how many of the sorted rows are below o, for o from 0 to `lists`.
template <class Row>
__global__ void __launch_bounds__(256)
    count_below(const Row* sorted, int64_t pairs, int64_t lists, int64_t* starts) {
  const int64_t o = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (o > lists) return;
  int64_t first = 0, last = pairs;
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    if (static_cast<int64_t>(sorted[middle]) < o)
      first = middle + 1;
    else
      last = middle;
  }
  starts[o] = first;
}

// The last list that begins at or before an entry, which has it where lists are not broken.  There is one
// list or more.
__device__ inline int64_t list_of_entry(const RowLists& lists, int64_t entry) {
  int64_t first = 0, last = lists.count - 1;
  while (first < last) {
    const int64_t middle = last - (last - first) / 2;
    if (lists.starts[middle] <= entry)
      first = middle;
    else
      last = middle - 1;
  }
  return first;
}

// The same by all threads of a block together, in two or three steps instead of tens: each looks at one of as
// many starts as there are threads.
__device__ inline int64_t block_list_of_entry(const RowLists& lists, int64_t entry) {
  int64_t first = 0, length = lists.count;
  while (length > 1) {
    const int64_t step = (length + blockDim.x - 1) / blockDim.x;
    const int64_t probe = threadIdx.x * step;
    const int before = __syncthreads_count(probe < length && lists.starts[first + probe] <= entry);
    const int64_t skipped = before > 1 ? (before - 1) * step : 0;
    first += skipped;
    length = length - skipped < step ? length - skipped : step;
  }
  return first;
}

}  // namespace hepfeed::device
