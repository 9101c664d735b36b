// Images resampled at other places: by a matrix about the centre, or by a field of displacements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

constexpr size_t kWarpAxes = 3;

// How an image (one event) lies in memory.  Lengths and strides of one to three axes that are resampled, in
// items; what lies at each of their places are the items at carried[k] + r for r < run: they all move
// together.
struct Image {
  size_t axes;
  int64_t length[kWarpAxes];
  int64_t stride[kWarpAxes];
  const int64_t* carried;
  size_t carried_count;
  size_t run;
  int64_t items;
};

// Where the value at place x of event e comes from:
//
//   matrix (events, axes, axes):   y = c + matrix[e] (x - c) with the centre c = (length - 1) / 2
//   field (events, axes, *length): y = x + field[e, :, x]
//
// One of them is null.
struct Map {
  const double* matrix;
  const float* field;
};

// out[e, x] = in[e, floor(y + 1/2)], the item `fill` where that is beyond the image; items of 1, 2, 4, 8 or
// 16 bytes.
void warp_nearest(const uint8_t* in, uint8_t* out, size_t item, const Image& image, size_t events,
                  const Map& map, const uint8_t* fill);

// out[e, x] = sum over the 2^axes corners q around y of (product over axes of 1 - |y - q|) in[e, q], with
// `fill` in the place of in[e, q] for corners beyond the image.  Sums are of doubles; corners of weight 0 are
// left out.
template <class T>
void warp_linear(const T* in, T* out, const Image& image, size_t events, const Map& map, double fill);

// Smooths fields (count, *length) of doubles with `taps` (2 radius + 1), along each axis in turn and with 0
// beyond the ends, and writes scale times the result to `out`: for one axis out[x] = scale sum_k taps[k] in[x
// + k - radius].  `scratch` has room for two fields and length[axes - 1] + 2 radius.
void smooth(const double* in, float* out, size_t count, size_t axes, const int64_t* length,
            const double* taps, int64_t radius, double scale, double* scratch);

}  // namespace hepfeed
