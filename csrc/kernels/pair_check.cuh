// Whether pairs can be used as they are, whatever the order of their rows.
#pragma once

#include <cstdint>

#include "kernels/map_pairs.h"
#include "port.h"

namespace hepfeed::device {

constexpr int kCheckThreads = 256;

// Sets *fault, 0 before, to 1 where a pair has a row that is not there, or where the offsets do not rise from
// 0 to the number of pairs.  Any number of blocks; reads 8 bytes a pair.
__global__ void __launch_bounds__(kCheckThreads) check_pairs_kernel(MapPairs map, int32_t* fault) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kCheckThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kCheckThreads;
  bool wrong = first == 0 && (map.offsets[0] != 0 || map.offsets[map.taps] != map.pairs);
  for (int64_t tap = first; tap < map.taps; tap += step) wrong |= map.offsets[tap + 1] < map.offsets[tap];
  for (int64_t pair = first; pair < map.pairs; pair += step) {
    const int32_t in = map.in_maps[pair], out = map.out_maps[pair];
    wrong |= in < 0 || in >= map.in_rows || out < 0 || out >= map.out_rows;
  }
  if (wrong) atomicOr(fault, 1);
}

}  // namespace hepfeed::device
