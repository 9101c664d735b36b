// The places of a batch of images as numbers, and the taps of a convolution over them.
#pragma once

#include <cstdint>

namespace hepfeed::device {

constexpr int kMostAxes = 16;

// Place (event, x_0, x_1, ...) has the key event * event_step + sum of x_d * step[d]: in C order, every axis
// being as wide as the steps say, which is the shape or more.  Keys are below 2^62.
struct SiteGrid {
  int32_t dims, events;
  int32_t shape[kMostAxes];
  int64_t step[kMostAxes];
  int64_t event_step;
};

// Rows (count, 1 + dims), aligned to 16 bytes: the event, then the coordinates.  Borrowed.
struct SiteRows {
  const int32_t* indices;
  const int32_t* order;  // of the rows, by their places; null where they lie so
  int32_t count;
};

// Taps are counted in C order.  A line is those which differ on the last axis alone.
struct KernelTaps {
  int32_t size[kMostAxes], stride[kMostAxes], padding[kMostAxes], dilation[kMostAxes];
  int32_t lines, in_line;
  bool transposed;
};

}  // namespace hepfeed::device
