// Cells of a grid that points lie in: the rule of cpu/cells.h, with the same bits.
#pragma once

#include "kernels/events.cuh"
#include "kernels/rounded.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int64_t kOut = -1;
constexpr int64_t kNan = -2;

__device__ inline int64_t bin_of(const Axis& axis, double x, Outside outside) {
  const int64_t last = axis.count - 1;
  double beyond;  // below 0 on one side of the grid, above on the other
  if (axis.edges) {
    const double high = axis.edges[axis.count];
    if (x >= axis.edges[0] && x < high)
      return last_before(axis.count, x, [&](int64_t bin) { return axis.edges[bin]; });
    if (x == high && axis.last_closed) return last;
    beyond = x - axis.edges[0];
  } else {
    beyond = __ddiv_rn(__dsub_rn(x, axis.low), axis.size);
    if (beyond >= 0 && beyond < static_cast<double>(axis.count)) return static_cast<int64_t>(beyond);
  }
  if (beyond != beyond) return kNan;
  if (outside != Outside::clip) return kOut;
  return beyond < 0 ? 0 : last;
}

// keys[i] = number of the cell of point i in C order of (event, cell), or the number of all cells of all
// events where it lies outside; rows[i] = i.  A NaN sets *fault, and so does a point outside that is an
// error.
__global__ void number_point_cells(Axes axes, Events events, int64_t points, Outside outside,
                                   uint64_t* __restrict__ keys, int32_t* __restrict__ rows,
                                   int32_t* __restrict__ fault) {
  const int64_t point = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (point >= points) return;
  bool inside = point < events.offsets[events.count];
  uint64_t cell = 0, cells = 1;
  for (int32_t d = 0; d < axes.count; ++d) {
    const Axis& axis = axes.axis[d];
    if (inside) {
      const int64_t bin = bin_of(axis, double_at(axis.data, axis.type, point * axis.stride), outside);
      if (bin == kNan || (bin == kOut && outside == Outside::raise)) atomicOr(fault, 1);
      inside = bin >= 0;
      cell = cell * static_cast<uint64_t>(axis.count) + static_cast<uint64_t>(bin);
    }
    cells *= static_cast<uint64_t>(axis.count);
  }
  uint64_t key = static_cast<uint64_t>(events.count) * cells;
  if (inside) {
    const int64_t event =
        last_before(events.count, point, [&](int64_t each) { return events.offsets[each]; });
    key = static_cast<uint64_t>(event) * cells + cell;
  }
  keys[point] = key;
  rows[point] = static_cast<int32_t>(point);
}

}  // namespace hepfeed::device
