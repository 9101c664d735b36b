// Sites of sparse images that are moved: windows, flips and turns by 90 degrees.
#pragma once

#include "kernels/batch.h"
#include "port.h"

namespace hepfeed::device {

// Moves sites to where move_images moves the items there: with z = length - 1 - x along the axes where
// reversed[e], else x, a site x of event e goes to y = z - origin[e], and in the plane one quarter takes (a,
// b) to (n - 1 - b, a).
//
// moved[i, :] = (event, new coordinates) of indices[i, :], and keys[i] = its number in C order of (event,
// cell): or, where it is outside, the number of all cells of all events, which is above every other.  An
// event that is not there sets *fault.
__global__ void number_moved_sites(const int32_t* __restrict__ indices, int64_t count, Move move,
                                   int32_t* __restrict__ moved, uint64_t* __restrict__ keys,
                                   int32_t* __restrict__ rows, int32_t* __restrict__ fault) {
  const int64_t site = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (site >= count) return;
  const int32_t* from = indices + site * (1 + move.axes);
  int32_t* to = moved + site * (1 + move.axes);
  const int32_t event = from[0];
  const bool known = event >= 0 && event < move.events;
  if (!known) atomicOr(fault, 1);
  const int64_t at = known ? event : 0;
  const int64_t* origin = move.origin ? move.origin + at * move.axes : nullptr;
  const uint8_t* reversed = move.reversed ? move.reversed + at * move.axes : nullptr;
  const int quarters = move.quarters ? move.quarters[at] : 0;
  bool inside = known;
  uint64_t cell = 0, stride = 1, a_stride = 0, b_stride = 0;
  int64_t a = 0, b = 0, length = 0;
#pragma unroll
  for (int axis = kMaxAxes - 1; axis >= 0; --axis) {
    if (axis >= move.axes) continue;
    const int64_t x = from[1 + axis];
    const bool turns = quarters != 0 && (axis == move.first || axis == move.second);
    const int64_t y =
        turns ? x
              : (reversed && reversed[axis] ? move.in_shape[axis] - 1 - x : x) - (origin ? origin[axis] : 0);
    inside &= y >= 0 && y < move.out_shape[axis];
    if (turns && axis == move.first) {
      a = y;
      a_stride = stride;
      length = move.out_shape[axis];
    } else if (turns) {
      b = y;
      b_stride = stride;
    } else {
      to[1 + axis] = static_cast<int32_t>(y);
      cell += static_cast<uint64_t>(y) * stride;
    }
    stride *= static_cast<uint64_t>(move.out_shape[axis]);
  }
  if (quarters != 0) {
    const int64_t turned_a = quarters == 1 ? length - 1 - b : quarters == 2 ? length - 1 - a : b;
    const int64_t turned_b = quarters == 1 ? a : quarters == 2 ? length - 1 - b : length - 1 - a;
    to[1 + move.first] = static_cast<int32_t>(turned_a);
    to[1 + move.second] = static_cast<int32_t>(turned_b);
    cell += static_cast<uint64_t>(turned_a) * a_stride + static_cast<uint64_t>(turned_b) * b_stride;
  }
  to[0] = event;
  keys[site] = static_cast<uint64_t>(inside ? event : move.events) * stride + (inside ? cell : 0);
  rows[site] = static_cast<int32_t>(site);
}

}  // namespace hepfeed::device
