// Kernel maps: which sites a convolution connects.
//
// Maps are found twice: first each warp counts its pairs, tap by tap; sums of the counts are then the places
// of the pairs, which are found again and written.  Nothing is placed by an atomic operation, so the order is
// always the same: by tap, and by the number of the output (the input, where outputs are not known yet).
//
//   counts  (1 + taps * warps): 0, then the pairs of each tap and each warp of 32 sites
//   totals  (1 + taps * warps): sums of the counts up to each, itself included
#pragma once

#include "kernels/map_search.h"
#include "kernels/site_keys.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int kMapThreads = 256;

// Pairs of one tap and warp: the lanes of `mask` have one.  For all lanes.
class PairsOfWarp {
 public:
  __device__ PairsOfWarp(int64_t site, int32_t sites, bool has_pair)
      : mask_(__ballot_sync(~0u, has_pair)),
        lane_(threadIdx.x % 32),
        warp_(site / 32),
        warps_((int64_t{sites} + 31) / 32) {}

  __device__ void count(int32_t tap, int64_t* counts) const {
    if (lane_ == 0 && warp_ < warps_) counts[1 + tap * warps_ + warp_] = __popc(mask_);
  }

  // Of the pair of this lane.
  __device__ int64_t place(int32_t tap, const int64_t* totals) const {
    return totals[tap * warps_ + warp_] + __popc(mask_ & ((1u << lane_) - 1));
  }

  // Pairs of the taps before one.
  __device__ int64_t before(int32_t tap, const int64_t* totals) const { return totals[tap * warps_]; }

 private:
  uint32_t mask_, lane_;
  int64_t warp_, warps_;
};

// ---- Submanifold maps: outputs lie where inputs do.
//
// Keys are of a grid that is wider than the images by the reach of the taps: a site that is moved out of its
// image gets a key that no site has.  The inputs of a line of taps have keys between two bounds, which are
// searched once; the taps are then found by going on from key to key.  Where rows are sorted, tap K - 1 - k
// has the pairs of tap k turned round, in the same order, so that only the taps before the centre are
// searched: half the searches and half the places to keep.  Where they are not, the pairs turned round are
// the ones that are sorted by their inputs.

// Taps of a line, as keys less that of the output.
struct TapLine {
  int64_t first;
  int32_t dilation, taps, first_tap;
};

__host__ __device__ __forceinline__ int32_t lines_searched(const KernelTaps& taps, bool halved) {
  return halved ? taps.lines / 2 + 1 : taps.lines;
}

__device__ __forceinline__ TapLine line_of(const KernelTaps& taps, const SiteGrid& grid, int32_t number,
                                           bool halved) {
  const int last = grid.dims - 1;
  const bool is_half = halved && number == taps.lines / 2;
  TapLine line{-int64_t{taps.size[last] / 2} * taps.dilation[last], taps.dilation[last],
               is_half ? taps.in_line / 2 : taps.in_line, number * taps.in_line};
  for (int d = last - 1; d >= 0; --d) {
    const int32_t tap = number % taps.size[d] - taps.size[d] / 2;
    line.first += int64_t{tap} * taps.dilation[d] * grid.step[d];
    number /= taps.size[d];
  }
  return line;
}

// The place of the first key not below `wanted`, from one which is not below the tap before: as keys are
// distinct it is at most `dilation` further.
__device__ __forceinline__ int32_t next_tap(const int64_t* keys, int32_t place, int32_t end, int64_t wanted,
                                            int32_t dilation) {
  if (place >= end || keys[place] >= wanted) return place;
  const int32_t high = end - place > dilation ? place + dilation : end;
  return lower_bound(keys, place + 1, high, wanted);
}

// Counts the pairs of each tap that is searched, and keeps for each line and output where its inputs begin.
//
// Sorted outputs have their inputs in a window that the first and the last output of a block bound.  Two
// warps find its ends in as few steps as its number has digits to the base 32; the search of each output is
// then in about as many keys as a block has outputs, which the first-level cache holds.
//
//   starts (lines searched, sites) out
__global__ void __launch_bounds__(kMapThreads)
    count_neighbours_kernel(Neighbourhood sites, SiteGrid grid, KernelTaps taps, int32_t* starts,
                            int64_t* counts) {
  HEPFEED_SHARED(int32_t, window, [2]);
  const int64_t first = int64_t{blockIdx.x} * kMapThreads, n = first + threadIdx.x;
  const bool is_site = n < sites.sites;
  const int64_t last = min(first + kMapThreads, int64_t{sites.sites}) - 1;
  const int64_t output = is_site ? sites.outputs[n] : 0;
  if (first == 0 && blockIdx.y == 0 && threadIdx.x == 0) counts[0] = 0;
  for (auto number = static_cast<int32_t>(blockIdx.y); number < lines_searched(taps, sites.halved);
       number += static_cast<int32_t>(gridDim.y)) {
    const TapLine line = line_of(taps, grid, number, sites.halved);
    int32_t low = 0, high = sites.sites;
    if (sites.halved) {
      const uint32_t warp = threadIdx.x / 32;
      if (warp < 2) {
        const int64_t end = int64_t{line.taps} * line.dilation;
        const int64_t wanted = line.first + (warp == 0 ? sites.outputs[first] : sites.outputs[last] + end);
        const int32_t bound = lower_bound_of_warp(sites.keys, sites.sites, wanted);
        if (threadIdx.x % 32 == 0) window[warp] = bound;
      }
      __syncthreads();
      low = window[0], high = window[1];
      __syncthreads();  // before the next line's window
    }
    int32_t place = is_site ? lower_bound(sites.keys, low, high, output + line.first) : high;
    if (is_site) starts[int64_t{number} * sites.sites + n] = place;
    for (int32_t tap = 0; tap < line.taps; ++tap) {
      const int64_t wanted = output + line.first + int64_t{tap} * line.dilation;
      place = next_tap(sites.keys, place, high, wanted, line.dilation);
      const bool is_pair = place < high && sites.keys[place] == wanted;
      PairsOfWarp(n, sites.sites, is_pair).count(line.first_tap + tap, counts);
    }
  }
}

// Writes the pairs that count_neighbours_kernel has counted; `order` is null where rows are sorted.
__global__ void __launch_bounds__(kMapThreads)
    write_neighbours_kernel(Neighbourhood sites, const int32_t* order, SiteGrid grid, KernelTaps taps,
                            const int32_t* starts, const int64_t* totals, PairArrays to) {
  const int64_t n = int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  const auto row = static_cast<int32_t>(n);
  const bool is_site = n < sites.sites;
  const int64_t output = is_site ? sites.outputs[n] : 0;
  const int32_t lines = lines_searched(taps, sites.halved), all_taps = taps.lines * taps.in_line;
  for (auto number = static_cast<int32_t>(blockIdx.y); number < lines;
       number += static_cast<int32_t>(gridDim.y)) {
    const TapLine line = line_of(taps, grid, number, sites.halved);
    int32_t place = is_site ? starts[int64_t{number} * sites.sites + n] : sites.sites;
    for (int32_t i = 0; i < line.taps; ++i) {
      const int32_t tap = line.first_tap + i;
      const int64_t wanted = output + line.first + int64_t{i} * line.dilation;
      place = next_tap(sites.keys, place, sites.sites, wanted, line.dilation);
      const bool is_pair = place < sites.sites && sites.keys[place] == wanted;
      const PairsOfWarp warp(n, sites.sites, is_pair);
      if (!is_pair) continue;
      const int32_t in = order == nullptr ? place : order[place];
      const int64_t here = warp.place(tap, totals), in_tap = here - warp.before(tap, totals);
      to.in_maps[here] = in;
      to.out_maps[here] = row;
      if (sites.halved) {
        const int64_t there = to.pairs - warp.before(tap + 1, totals) + in_tap;
        to.in_maps[there] = row;
        to.out_maps[there] = in;
      } else {
        const int64_t there = warp.before(all_taps - 1 - tap, totals) + in_tap;
        to.back_in[there] = in;
        to.back_out[there] = row;
      }
    }
    if (sites.halved && number == lines - 1 && is_site) {  // the tap at the centre takes each site to itself
      const int64_t here = (to.pairs - sites.sites) / 2 + n;
      to.in_maps[here] = to.out_maps[here] = row;
    }
  }
}

// ---- Other maps: an output is wherever a tap takes an input.
//
// Every input and tap that stay within the grid of the outputs are a pair.  For one tap the key of the output
// rises with the place of the input, so pairs that are written tap by tap, by the places of their inputs, lie
// in the order of the map already; the rows of their outputs are the numbers of the distinct keys.

// Where one tap takes a coordinate, or -1.  Tap k is `reach` = k * dilation away.
__device__ __forceinline__ int64_t moved(const Reach& to, int axis, int32_t x, int64_t reach) {
  int64_t place;
  if (to.taps.transposed) {
    place = int64_t{x} * to.taps.stride[axis] - to.taps.padding[axis] + reach;
  } else {
    const int64_t scaled = int64_t{x} + to.taps.padding[axis] - reach;
    if (scaled < 0 || scaled > 0xffffffff) return -1;
    const auto stride = static_cast<uint32_t>(to.taps.stride[axis]);  // 64 bits would take far longer
    const uint32_t whole = static_cast<uint32_t>(scaled) / stride;
    if (whole * stride != static_cast<uint32_t>(scaled)) return -1;
    place = whole;
  }
  return place >= 0 && place < to.outputs.shape[axis] ? place : -1;
}

// An input and the outputs that a line of taps takes it to.
class ReachingInput {
 public:
  __device__ ReachingInput(const Reach& to, int64_t n, int32_t line) : to_(to) {
    row_ = n < to.inputs.count ? row_at(to.inputs, static_cast<int32_t>(n)) : -1;
    if (row_ < 0) return;
    const int last = to.outputs.dims - 1;
    const int32_t* const site = to.inputs.indices + int64_t{row_} * (last + 2);
    last_ = site[1 + last];
    if (static_cast<uint32_t>(site[0]) >= static_cast<uint32_t>(to.outputs.events)) row_ = -1;
    base_ = row_ < 0 ? 0 : site[0] * to.outputs.event_step;
    for (int d = last - 1; d >= 0; --d) {
      const int64_t place = moved(to, d, site[1 + d], int64_t{line % to.taps.size[d]} * to.taps.dilation[d]);
      if (place < 0) row_ = -1;
      base_ += row_ < 0 ? 0 : place * to.outputs.step[d];
      line /= to.taps.size[d];
    }
  }

  __device__ int32_t row() const { return row_; }

  // The key of the output, or -1.
  __device__ int64_t key(int32_t tap) const {
    if (row_ < 0) return -1;
    const int last = to_.outputs.dims - 1;
    const int64_t place = moved(to_, last, last_, int64_t{tap} * to_.taps.dilation[last]);
    return place < 0 ? -1 : base_ + place;
  }

 private:
  const Reach& to_;
  int32_t row_, last_ = 0;
  int64_t base_ = 0;
};

__global__ void __launch_bounds__(kMapThreads) count_reached_kernel(Reach to, int64_t* counts) {
  const int64_t n = int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (n == 0 && blockIdx.y == 0) counts[0] = 0;
  for (auto line = static_cast<int32_t>(blockIdx.y); line < to.taps.lines;
       line += static_cast<int32_t>(gridDim.y)) {
    const ReachingInput input(to, n, line);
    for (int32_t tap = 0; tap < to.taps.in_line; ++tap)
      PairsOfWarp(n, to.inputs.count, input.key(tap) >= 0).count(line * to.taps.in_line + tap, counts);
  }
}

// in_maps, keys (pairs) out: the row of the input and the key of the output of each pair.
__global__ void __launch_bounds__(kMapThreads)
    write_reached_kernel(Reach to, const int64_t* totals, int32_t* in_maps, int64_t* keys) {
  const int64_t n = int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  for (auto line = static_cast<int32_t>(blockIdx.y); line < to.taps.lines;
       line += static_cast<int32_t>(gridDim.y)) {
    const ReachingInput input(to, n, line);
    for (int32_t tap = 0; tap < to.taps.in_line; ++tap) {
      const int64_t key = input.key(tap);
      const PairsOfWarp warp(n, to.inputs.count, key >= 0);
      if (key < 0) continue;
      const int64_t place = warp.place(line * to.taps.in_line + tap, totals);
      in_maps[place] = input.row();
      keys[place] = key;
    }
  }
}

// The tap of a pair; those of tap k are offsets[k] .. offsets[k + 1] - 1.
__device__ __forceinline__ int32_t tap_of(const int64_t* offsets, int32_t taps, int64_t pair) {
  return lower_bound(offsets + 1, 0, taps, pair + 1);
}

// keys[p] = tap * rows + in_maps[p]: pairs sorted by these keys are sorted by tap and input.
__global__ void __launch_bounds__(kMapThreads)
    key_pairs_kernel(const int32_t* in_maps, const int64_t* offsets, int32_t taps, int32_t rows,
                     int64_t pairs, int64_t* keys) {
  const int64_t pair = int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (pair < pairs) keys[pair] = int64_t{tap_of(offsets, taps, pair)} * rows + in_maps[pair];
}

// back_out[p] = the input of which a sorted key was made.
__global__ void __launch_bounds__(kMapThreads)
    unkey_pairs_kernel(const int64_t* keys, const int64_t* offsets, int32_t taps, int32_t rows, int64_t pairs,
                       int32_t* back_out) {
  const int64_t pair = int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (pair < pairs)
    back_out[pair] = static_cast<int32_t>(keys[pair] - int64_t{tap_of(offsets, taps, pair)} * rows);
}

}  // namespace hepfeed::device
