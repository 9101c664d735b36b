// The pairs of a kernel map in memory of the device.
#pragma once

#include <cstdint>

namespace hepfeed::device {

// Pairs (in row, out row); those of tap k are offsets[k] .. offsets[k + 1] - 1.  Borrowed.
struct MapPairs {
  const int32_t *in_maps, *out_maps;  // (pairs)
  const int64_t* offsets;             // (taps + 1)
  int64_t pairs;
  int32_t taps;  // 1 or more where there are pairs
  int32_t in_rows, out_rows;
};

}  // namespace hepfeed::device
