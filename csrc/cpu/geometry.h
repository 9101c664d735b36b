// Movements of whole images: windows, flips and turns by 90 degrees.  Items are moved as bytes, never
// changed.
//
// Images are (events, *shape) in C order.  `axes` is the number of axes of one event and `item` the bytes of
// one item.  Input and output must not overlap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// out[e, x] = in[e, x + origin[e]] where that lies within the image, and the item `fill` elsewhere.
//
// origin is (events, axes); its numbers may be beyond the image, but not beyond half the range of int64.
void window(const uint8_t* in, const int64_t* in_shape, uint8_t* out, const int64_t* out_shape, size_t axes,
            size_t item, size_t events, const int64_t* origin, const uint8_t* fill);

// out[e, x] = in[e, y] with y = shape - 1 - x along the axes where flags (events, axes) are not 0, else y =
// x.
void flip(const uint8_t* in, uint8_t* out, const int64_t* shape, size_t axes, size_t item, size_t events,
          const uint8_t* flags);

// Turns by quarters[e] times 90 degrees in the plane of axes 1 and 3 of (outer, n, middle, n, inner bytes),
// as numpy.rot90: for one quarter out[i, j] = in[j, n - 1 - i].  inner_bytes is a multiple of `item`.
void rotate90(const uint8_t* in, uint8_t* out, size_t outer, size_t n, size_t middle, size_t inner_bytes,
              size_t item, size_t events, const uint8_t* quarters);

// The least box of items that are not 0: out (events, axes, 2) holds first and last + 1 along each axis, and
// 0, 0 where all items are 0.  `mask` has the bits of an item (of at most 8 bytes) that make it differ from
// 0.
void extents(const uint8_t* in, const int64_t* shape, size_t axes, size_t item, uint64_t mask, size_t events,
             int64_t* out);

}  // namespace hepfeed
