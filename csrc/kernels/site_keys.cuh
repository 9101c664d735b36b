// Keys of sites, and where a key lies among sorted ones.
#pragma once

#include "kernels/site_grid.h"
#include "port.h"

namespace hepfeed::device {

// Loads of a row are one instruction for three axes: a site of 16 bytes.
template <int kDims>
__device__ __forceinline__ void load_site(const int32_t* indices, int64_t row, int32_t (&site)[kDims + 1]) {
  if constexpr (kDims == 3) {
    const int4 all = reinterpret_cast<const int4*>(indices)[row];
    site[0] = all.x, site[1] = all.y, site[2] = all.z, site[3] = all.w;
  } else if constexpr (kDims == 1) {
    const int2 all = reinterpret_cast<const int2*>(indices)[row];
    site[0] = all.x, site[1] = all.y;
  } else {
#pragma unroll
    for (int d = 0; d <= kDims; ++d) site[d] = indices[row * (kDims + 1) + d];
  }
}

// The key of a site, or -1 outside of the grid.
__device__ __forceinline__ int64_t key_of(const int32_t* site, int dims, const SiteGrid& grid) {
  bool inside = static_cast<uint32_t>(site[0]) < static_cast<uint32_t>(grid.events);
  int64_t key = inside ? site[0] * grid.event_step : 0;
#pragma unroll
  for (int d = 0; d < dims; ++d) {
    inside = inside && static_cast<uint32_t>(site[1 + d]) < static_cast<uint32_t>(grid.shape[d]);
    key += inside ? site[1 + d] * grid.step[d] : 0;
  }
  return inside ? key : -1;
}

template <int kDims>
__device__ __forceinline__ int64_t key_of_row(const int32_t* indices, int64_t row, const SiteGrid& grid) {
  int32_t site[kDims + 1];
  load_site<kDims>(indices, row, site);
  return key_of(site, kDims, grid);
}

__device__ __forceinline__ int64_t key_of_row(const int32_t* indices, int64_t row, const SiteGrid& grid) {
  switch (grid.dims) {
    case 1:
      return key_of_row<1>(indices, row, grid);
    case 2:
      return key_of_row<2>(indices, row, grid);
    case 3:
      return key_of_row<3>(indices, row, grid);
    default:
      return key_of(indices + row * (grid.dims + 1), grid.dims, grid);
  }
}

// The row at a place of the order, or -1 where the order names none.
__device__ __forceinline__ int32_t row_at(const SiteRows& sites, int32_t place) {
  if (sites.order == nullptr) return place;
  const int32_t row = sites.order[place];
  return static_cast<uint32_t>(row) < static_cast<uint32_t>(sites.count) ? row : -1;
}

__device__ __forceinline__ int64_t key_at(const SiteRows& sites, int32_t place, const SiteGrid& grid) {
  const int32_t row = row_at(sites, place);
  return row < 0 ? -1 : key_of_row(sites.indices, row, grid);
}

// The first place in low .. high - 1 whose key is not below `wanted`, or `high`; keys rise.
__device__ __forceinline__ int32_t lower_bound(const int64_t* keys, int32_t low, int32_t high,
                                               int64_t wanted) {
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (keys[middle] < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// The same by all lanes of a warp, which look at 32 places at once.
__device__ __forceinline__ int32_t lower_bound_of_warp(const int64_t* keys, int32_t count, int64_t wanted) {
  const int64_t lane = threadIdx.x % 32;
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t step = (high - low + 31) / 32, probe = low + (lane + 1) * step - 1;
    const int64_t below = __popc(__ballot_sync(~0u, probe < high && keys[probe] < wanted));
    high = min(high, low + (below + 1) * step - 1);
    low = min(high, low + below * step);
  }
  return static_cast<int32_t>(low);
}

}  // namespace hepfeed::device
