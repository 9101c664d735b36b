// The plan of a convolution: for each row of its output the rows of its input by taps, with output rows that
// have the same taps side by side.
//
// out_rows is M.  The taps of a row are bits: those of 64 taps in a word, words side by side in memory for
// each row of a word: row_taps (words, M).  Positions are the rows of the output sorted by the first word.
#pragma once

#include <cstdint>

#include "kernels/convolution.h"
#include "kernels/map_pairs.h"
#include "port.h"

namespace hepfeed::device {

constexpr int kPlanThreads = 256;

using TapBits = unsigned long long;

// The last tap that begins at a pair or before it.  It is a tap even where the offsets are of no use.
__device__ __forceinline__ int32_t tap_of(const MapPairs& map, int64_t pair) {
  int32_t first = 0, last = map.taps - 1;
  while (first < last) {
    const int32_t middle = first + (last - first + 1) / 2;
    if (map.offsets[middle] <= pair)
      first = middle;
    else
      last = middle - 1;
  }
  return first;
}

// Whether both rows are there, and the output row is above that of the pair before it in the same tap: no tap
// has an output row twice then.
__device__ __forceinline__ bool is_sound(const MapPairs& map, int64_t pair, int32_t tap) {
  const int32_t in = map.in_maps[pair], out = map.out_maps[pair];
  if (in < 0 || in >= map.in_rows || out < 0 || out >= map.out_rows) return false;
  return pair == 0 || pair == map.offsets[tap] || map.out_maps[pair - 1] < out;
}

// Sets the bit of each pair in row_taps, 0 before, and *fault to 1 where a pair or an offset is wrong.  Reads
// 8 bytes a pair, and writes 8 bytes a pair, which is in order within a tap.
__global__ void __launch_bounds__(kPlanThreads)
    mark_taps_kernel(MapPairs map, TapBits* row_taps, int32_t* fault) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kPlanThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kPlanThreads;
  bool wrong = false;
  for (int64_t k = thread; k <= map.taps; k += threads) {
    const int64_t offset = map.offsets[k];
    wrong |= k == 0 ? offset != 0 : offset < map.offsets[k - 1];
    wrong |= k == map.taps && offset != map.pairs;
  }
  if (thread < map.pairs) {
    const int32_t tap = tap_of(map, thread);
    if (is_sound(map, thread, tap))
      atomicOr(&row_taps[static_cast<int64_t>(tap / 64) * map.out_rows + map.out_maps[thread]],
               TapBits{1} << (tap % 64));
    else
      wrong = true;
  }
  if (wrong) atomicOr(fault, 1);
}

// Of rows sorted by their taps makes positions (M): where each row is; and tile_taps (tiles, 2 * words), the
// taps that some row of a tile has, 32 in a word.  One warp a tile.
__global__ void __launch_bounds__(kPlanThreads)
    join_taps_kernel(const TapBits* row_taps, const int32_t* rows, int32_t out_rows, int32_t words,
                     int32_t* positions, uint32_t* tile_taps) {
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * (kPlanThreads / 32) + threadIdx.x / 32;
  const int64_t lane = threadIdx.x % 32, first = tile * kTileRows;
  if (first >= out_rows) return;
  for (int32_t word = 0; word < words; ++word) {
    TapBits taps = 0;
    for (int64_t position = first + lane; position < first + kTileRows && position < out_rows;
         position += 32) {
      const int32_t row = rows[position];
      taps |= row_taps[static_cast<int64_t>(word) * out_rows + row];
      if (word == 0) positions[row] = static_cast<int32_t>(position);
    }
    for (int step = 16; step > 0; step /= 2) taps |= __shfl_xor_sync(0xffffffffu, taps, step);
    if (lane == 0) {
      uint32_t* const joined = tile_taps + (tile * words + word) * 2;
      joined[0] = static_cast<uint32_t>(taps);
      joined[1] = static_cast<uint32_t>(taps >> 32);
    }
  }
}

// Sets table (taps, M), -1 before, to the input row of each tap and position.  Pairs that are wrong are left
// out.
__global__ void __launch_bounds__(kPlanThreads)
    place_pairs_kernel(MapPairs map, const int32_t* positions, int32_t* table) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kPlanThreads + threadIdx.x;
  if (pair >= map.pairs) return;
  const int32_t tap = tap_of(map, pair);
  if (is_sound(map, pair, tap))
    table[static_cast<int64_t>(tap) * map.out_rows + positions[map.out_maps[pair]]] = map.in_maps[pair];
}

}  // namespace hepfeed::device
