#include <algorithm>
#include <stdexcept>

#include "cuda/kernel_map.h"
#include "kernels/kernel_map.cuh"

namespace hepfeed::device {
namespace {

unsigned blocks_for(int64_t items) { return static_cast<unsigned>((items + kMapThreads - 1) / kMapThreads); }

constexpr unsigned kMostLineBlocks =
    256;  // of the same sites: enough to fill a card, whose grids are limited

// A block for each 256 sites and line of taps; those of many lines take several.
dim3 grid_for(int32_t sites, int32_t lines) {
  return dim3(blocks_for(sites), std::min(static_cast<unsigned>(lines), kMostLineBlocks));
}

}  // namespace

KernelTaps taps_of(const std::vector<int64_t>& size, const std::vector<int64_t>& stride,
                   const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                   bool transposed) {
  const size_t dims = size.size();
  if (dims == 0 || dims > kMostAxes || stride.size() != dims || padding.size() != dims ||
      dilation.size() != dims)
    throw std::invalid_argument("taps have a number of each kind for each of 1 to 16 axes");
  KernelTaps taps{};
  taps.lines = 1;
  taps.in_line = static_cast<int32_t>(size.back());
  taps.transposed = transposed;
  for (size_t d = 0; d < dims; ++d) {
    taps.size[d] = static_cast<int32_t>(size[d]);
    taps.stride[d] = static_cast<int32_t>(stride[d]);
    taps.padding[d] = static_cast<int32_t>(padding[d]);
    taps.dilation[d] = static_cast<int32_t>(dilation[d]);
    if (d + 1 < dims) taps.lines *= taps.size[d];
  }
  return taps;
}

void count_neighbours(const Neighbourhood& sites, const SiteGrid& grid, const KernelTaps& taps,
                      int32_t* starts, int64_t* counts, Stream stream) {
  launch(count_neighbours_kernel, grid_for(sites.sites, lines_searched(taps, sites.halved)), kMapThreads, 0,
         stream, sites, grid, taps, starts, counts);
}

void write_neighbours(const Neighbourhood& sites, const int32_t* order, const SiteGrid& grid,
                      const KernelTaps& taps, const int32_t* starts, const int64_t* totals,
                      const PairArrays& to, Stream stream) {
  launch(write_neighbours_kernel, grid_for(sites.sites, lines_searched(taps, sites.halved)), kMapThreads, 0,
         stream, sites, order, grid, taps, starts, totals, to);
}

void count_reached(const Reach& to, int64_t* counts, Stream stream) {
  launch(count_reached_kernel, grid_for(to.inputs.count, to.taps.lines), kMapThreads, 0, stream, to, counts);
}

void write_reached(const Reach& to, const int64_t* totals, int32_t* in_maps, int64_t* keys, Stream stream) {
  launch(write_reached_kernel, grid_for(to.inputs.count, to.taps.lines), kMapThreads, 0, stream, to, totals,
         in_maps, keys);
}

void key_pairs(const int32_t* in_maps, const int64_t* offsets, int32_t taps, int32_t rows, int64_t pairs,
               int64_t* keys, Stream stream) {
  launch(key_pairs_kernel, blocks_for(pairs), kMapThreads, 0, stream, in_maps, offsets, taps, rows, pairs,
         keys);
}

void unkey_pairs(const int64_t* keys, const int64_t* offsets, int32_t taps, int32_t rows, int64_t pairs,
                 int32_t* back_out, Stream stream) {
  launch(unkey_pairs_kernel, blocks_for(pairs), kMapThreads, 0, stream, keys, offsets, taps, rows, pairs,
         back_out);
}

}  // namespace hepfeed::device
