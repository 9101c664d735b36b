#include <algorithm>

#include "cuda/plan.h"
#include "kernels/plan.cuh"

namespace hepfeed::device {
namespace {

unsigned blocks_for(int64_t items, int64_t in_block) {
  return static_cast<unsigned>((items + in_block - 1) / in_block);
}

}  // namespace

void mark_taps(const MapPairs& map, uint64_t* row_taps, int32_t* fault, Stream stream) {
  const unsigned blocks =
      std::max(1u, blocks_for(map.pairs, kPlanThreads));  // offsets are looked at without pairs too
  launch(mark_taps_kernel, blocks, kPlanThreads, 0, stream, map, reinterpret_cast<TapBits*>(row_taps), fault);
}

void join_taps(const uint64_t* row_taps, const int32_t* rows, int32_t out_rows, int32_t words,
               int32_t* positions, uint32_t* tile_taps, Stream stream) {
  constexpr int kBlockRows = kPlanThreads / 32 * kTileRows;
  launch(join_taps_kernel, blocks_for(out_rows, kBlockRows), kPlanThreads, 0, stream,
         reinterpret_cast<const TapBits*>(row_taps), rows, out_rows, words, positions, tile_taps);
}

void place_pairs(const MapPairs& map, const int32_t* positions, int32_t* table, Stream stream) {
  launch(place_pairs_kernel, blocks_for(map.pairs, kPlanThreads), kPlanThreads, 0, stream, map, positions,
         table);
}

}  // namespace hepfeed::device
