// Launchers of kernels/plan.cuh, which describes the arrays.
#pragma once

#include <cstdint>

#include "kernels/map_pairs.h"
#include "launch.h"

namespace hepfeed::device {

void mark_taps(const MapPairs& map, uint64_t* row_taps, int32_t* fault, Stream stream);
void join_taps(const uint64_t* row_taps, const int32_t* rows, int32_t out_rows, int32_t words,
               int32_t* positions, uint32_t* tile_taps, Stream stream);
void place_pairs(const MapPairs& map, const int32_t* positions, int32_t* table, Stream stream);

}  // namespace hepfeed::device
