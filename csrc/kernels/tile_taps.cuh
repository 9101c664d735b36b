// Which taps a block of rows has.
#pragma once

#include <cstdint>

#include "kernels/convolution.h"
#include "port.h"

namespace hepfeed::device {

constexpr int kWindowTaps = 256;  // that a block lists at a time

// Lists the taps from first_tap on, kWindowTaps of them at most, that some row of `tiles` tiles has, in
// rising order, and returns their number.  tile_taps begins with the first of the tiles, `words` words for
// each; see plan.cuh.  `list` lies in shared memory and is complete after the next barrier.  All threads of a
// block, whole warps, call it.
__device__ __forceinline__ int list_taps(const uint32_t* tile_taps, int words, int tiles, int first_tap,
                                         int thread, int threads, int32_t* list) {
  const int lane = thread % 32;
  int count = 0;
  for (int i = 0; i < kWindowTaps / 32; ++i) {
    const int word = first_tap / 32 + i;
    if (word >= words) break;
    uint32_t taps = 0;
    for (int tile = 0; tile < tiles; ++tile) taps |= tile_taps[tile * words + word];
    if (i % (threads / 32) == thread / 32 && (taps >> lane & 1u))
      list[count + __popc(taps & ((1u << lane) - 1))] = word * 32 + lane;
    count += __popc(taps);
  }
  return count;
}

}  // namespace hepfeed::device
