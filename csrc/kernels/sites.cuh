// Sets of sites: their keys, which of them are distinct, and which is where.
#pragma once

#include <cmath>

#include "kernels/site_keys.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int kSiteThreads = 256;

// What may be wrong with sites; bits of a number that kernels set.
enum SiteFault : uint64_t { kOutside = 1, kUnsorted = 2, kRepeated = 4 };

// Sets a bit where a thread of the block asks for it: with one atomic operation a block, as a fault that all
// sites have must not queue them up.  For all threads of a block; without faults nothing is reported.
__device__ __forceinline__ void report(bool found, SiteFault fault, unsigned long long* faults) {
  if (faults == nullptr) return;
  if (__syncthreads_or(found) && threadIdx.x == 0) atomicOr(faults, static_cast<unsigned long long>(fault));
}

// keys[n] = the key of the site at place n of the order, -1 where it is outside.  Reports sites that are
// outside, and those which are not above the one before.  `keys` may be null.
__global__ void __launch_bounds__(kSiteThreads)
    number_sites_kernel(SiteRows sites, SiteGrid grid, int64_t* keys, unsigned long long* faults) {
  const int64_t n = int64_t{blockIdx.x} * kSiteThreads + threadIdx.x;
  bool outside = false, unsorted = false;
  if (n < sites.count) {
    const auto place = static_cast<int32_t>(n);
    const int64_t key = key_at(sites, place, grid);
    outside = key < 0;
    unsorted = place > 0 && key_at(sites, place - 1, grid) >= key;
    if (keys != nullptr) keys[n] = key;
  }
  report(outside, kOutside, faults);
  report(unsorted, kUnsorted, faults);
}

// Reports equal keys, which are sorted.
__global__ void __launch_bounds__(kSiteThreads)
    find_repeats_kernel(const int64_t* keys, int64_t count, unsigned long long* faults) {
  const int64_t n = int64_t{blockIdx.x} * kSiteThreads + threadIdx.x;
  report(n > 0 && n < count && keys[n] == keys[n - 1], kRepeated, faults);
}

// is_first[n] = 1 where a sorted key is not the one before, else 0.
__global__ void __launch_bounds__(kSiteThreads)
    mark_distinct_kernel(const int64_t* keys, int64_t count, int32_t* is_first) {
  const int64_t n = int64_t{blockIdx.x} * kSiteThreads + threadIdx.x;
  if (n < count) is_first[n] = n == 0 || keys[n] != keys[n - 1];
}

// Numbers distinct keys from 0.
//
//   keys   (count) sorted               first  (count) sums of is_first up to each key, itself included
//   order  (count) the row of each key
//   row_of (count) out: of each row, the number of its key
//   sites  (distinct, 1 + dims) out: their places
__global__ void __launch_bounds__(kSiteThreads)
    write_distinct_kernel(const int64_t* keys, const int32_t* firsts, const int32_t* order, int64_t count,
                          SiteGrid grid, int32_t* row_of, int32_t* sites) {
  const int64_t n = int64_t{blockIdx.x} * kSiteThreads + threadIdx.x;
  if (n >= count) return;
  const int32_t number = firsts[n] - 1;
  row_of[order[n]] = number;
  if (n > 0 && firsts[n - 1] == firsts[n]) return;
  int32_t* const site = sites + int64_t{number} * (grid.dims + 1);
  int64_t rest = keys[n];
  site[0] = static_cast<int32_t>(rest / grid.event_step);
  rest %= grid.event_step;
  for (int d = 0; d < grid.dims; ++d) {
    site[1 + d] = static_cast<int32_t>(rest / grid.step[d]);
    rest %= grid.step[d];
  }
}

// found[q] = the row of the site that query q is, or -1.
//
//   keys    (sites.count) of the sites, rising
//   queries (count, 1 + dims) aligned to 16 bytes
__global__ void __launch_bounds__(kSiteThreads)
    find_sites_kernel(const int64_t* keys, SiteRows sites, const int32_t* queries, int64_t count,
                      SiteGrid grid, int32_t* found) {
  const int64_t q = int64_t{blockIdx.x} * kSiteThreads + threadIdx.x;
  if (q >= count) return;
  const int64_t wanted = key_of_row(queries, q, grid);
  int32_t row = -1;
  if (wanted >= 0) {
    const int32_t place = lower_bound(keys, 0, sites.count, wanted);
    if (place < sites.count && keys[place] == wanted) row = row_at(sites, place);
  }
  found[q] = row;
}

// Cells (count, 1 + dims) of points (count, dims): the event, held in -1 .. 2^31 - 1, and the coordinates
// rounded down, held in -farthest .. farthest.  Reports coordinates that are not finite as outside.
template <class Point, class Event>
__global__ void __launch_bounds__(kSiteThreads)
    cells_of_points_kernel(const Point* points, const Event* events, int64_t count, int32_t dims,
                           int32_t farthest, int32_t* cells, unsigned long long* faults) {
  const int64_t first = int64_t{blockIdx.x} * kSiteThreads;
  const auto points_here = static_cast<uint32_t>(min(int64_t{kSiteThreads}, count - first));
  const auto columns = static_cast<uint32_t>(dims) + 1;
  const Point most = static_cast<Point>(farthest);
  bool broken = false;
  // A thread takes one number after another of the block's cells, so that neighbours write to neighbours.
  for (uint32_t item = threadIdx.x; item < points_here * columns; item += kSiteThreads) {
    const uint32_t column = item % columns;
    const int64_t point = first + item / columns;
    int32_t number;
    if (column == 0) {
      const auto event = static_cast<int64_t>(events[point]);
      number = static_cast<int32_t>(max(int64_t{-1}, min(event, int64_t{0x7fffffff})));
    } else {
      const Point x = points[point * dims + column - 1];
      const bool finite = std::isfinite(x);
      broken = broken || !finite;
      number = finite ? static_cast<int32_t>(max(-most, min(std::floor(x), most))) : 0;
    }
    cells[first * columns + item] = number;
  }
  report(broken, kOutside, faults);
}

}  // namespace hepfeed::device
