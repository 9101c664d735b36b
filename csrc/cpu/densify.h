// Sparse images as dense ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// images[(o * channels + c) * inner + i] = features[n, c], and 0 elsewhere, where site n = (event,
// coordinates) has the number o * inner + i in C order of (events, shape); `inner` divides the number of
// cells of an event.  Items have `item` bytes: 1, 2, 4 or 8.
//
// Sites are sorted by event.  Returns the first one that is not, or lies outside of the images, which are
// broken then; or `sites`.
size_t densify(const int32_t* indices, const void* features, size_t sites, const int64_t* shape, size_t dims,
               size_t events, size_t channels, size_t inner, size_t item, void* images);

}  // namespace hepfeed
