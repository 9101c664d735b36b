// Dense images that are moved: windows, flips and turns by 90 degrees are one function of places.
#pragma once

#include "kernels/batch.h"
#include "kernels/divisor.cuh"
#include "port.h"

namespace hepfeed::device {

// What the host works out of the shapes of a Move.
struct Layout {
  Divisor out_length[kMaxAxes];
  int64_t in_stride[kMaxAxes];
  int64_t in_units;
  uint32_t out_units;
  uint32_t blocks;  // of an event
};

constexpr int kMoveThreads = 256;
constexpr int kMoves = 4;

// Each thread moves kMoves units of one event, a block's width apart, so that stores are coalesced; loads are
// where the last axis is not turned, and come by whole sectors of 32 bytes or from the cache else.  A unit is
// up to 16 bytes: trailing axes that stay are part of it.  Every byte is read and written once.
template <class Unit>
__global__ void __launch_bounds__(kMoveThreads, 6)
    move_images(const Unit* __restrict__ in, Unit* __restrict__ out, Move move, Layout layout, Unit fill) {
  const uint32_t event = blockIdx.x / layout.blocks, block = blockIdx.x - event * layout.blocks;
  const int64_t* origin = move.origin ? move.origin + static_cast<int64_t>(event) * move.axes : nullptr;
  const uint8_t* reversed = move.reversed ? move.reversed + static_cast<int64_t>(event) * move.axes : nullptr;
  const int quarters = move.quarters ? move.quarters[event] : 0;
  in += event * layout.in_units;
  out += event * static_cast<int64_t>(layout.out_units);
  for (int k = 0; k < kMoves; ++k) {
    const uint32_t place = (block * kMoves + k) * kMoveThreads + threadIdx.x;
    if (place >= layout.out_units) return;
    bool inside = true;
    int64_t from = 0, a = 0, b = 0, length = 0, a_stride = 0, b_stride = 0;
    uint32_t left = place;
    // Unrolled, so that nothing is indexed by a number that is not known: that would lie in local memory.
#pragma unroll
    for (int axis = kMaxAxes - 1; axis >= 0; --axis) {
      if (axis >= move.axes) continue;
      const uint32_t quotient = layout.out_length[axis].quotient(left);
      int64_t y = left - quotient * layout.out_length[axis].divisor;
      left = quotient;
      if (quarters != 0 && axis == move.first) {
        a = y;
        a_stride = layout.in_stride[axis];
        length = move.in_shape[axis];
      } else if (quarters != 0 && axis == move.second) {
        b = y;
        b_stride = layout.in_stride[axis];
      } else {
        if (origin) y += origin[axis];
        if (reversed && reversed[axis]) y = move.in_shape[axis] - 1 - y;
        inside &= y >= 0 && y < move.in_shape[axis];
        from += y * layout.in_stride[axis];
      }
    }
    if (quarters == 1) from += b * a_stride + (length - 1 - a) * b_stride;
    if (quarters == 2) from += (length - 1 - a) * a_stride + (length - 1 - b) * b_stride;
    if (quarters == 3) from += (length - 1 - b) * a_stride + a * b_stride;
    out[place] = inside ? in[from] : fill;
  }
}

}  // namespace hepfeed::device
