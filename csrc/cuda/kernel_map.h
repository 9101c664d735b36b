// Launchers of kernels/kernel_map.cuh, which describes the arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/map_search.h"
#include "launch.h"

namespace hepfeed::device {

KernelTaps taps_of(const std::vector<int64_t>& size, const std::vector<int64_t>& stride,
                   const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                   bool transposed);

void count_neighbours(const Neighbourhood& sites, const SiteGrid& grid, const KernelTaps& taps,
                      int32_t* starts, int64_t* counts, Stream stream);
void write_neighbours(const Neighbourhood& sites, const int32_t* order, const SiteGrid& grid,
                      const KernelTaps& taps, const int32_t* starts, const int64_t* totals,
                      const PairArrays& to, Stream stream);
void count_reached(const Reach& to, int64_t* counts, Stream stream);
void write_reached(const Reach& to, const int64_t* totals, int32_t* in_maps, int64_t* keys, Stream stream);
void key_pairs(const int32_t* in_maps, const int64_t* offsets, int32_t taps, int32_t rows, int64_t pairs,
               int64_t* keys, Stream stream);
void unkey_pairs(const int64_t* keys, const int64_t* offsets, int32_t taps, int32_t rows, int64_t pairs,
                 int32_t* back_out, Stream stream);

}  // namespace hepfeed::device
