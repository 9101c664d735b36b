// The active sites of dense images.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/convert.h"

namespace hepfeed {

// Images as (outer, channels, inner); site (o, i) has the number o * inner + i.
struct Images {
  const void* data;
  Type type;
  size_t outer;
  size_t channels;
  size_t inner;
};

// Sites that one call may add, whatever it finds: the least room that it needs.
constexpr size_t kSparsifyBlock = 4096;

// Appends the sites where some channel is not <= threshold (not within [-threshold, threshold] where
// `absolute`), so that a NaN is active.  The threshold is rounded to the type of floating-point images and
// compared exactly with integers; it is not below 0 where `absolute`.
//
//   next     in: 0, out: where to go on; the images are done when it is outer * inner
//   site     (room) out: numbers of the sites, rising
//   features (room, channels) out: values there, of `feature_type`: f4 or f8
//
// Returns the number of sites found before it was done or had less than kSparsifyBlock of room left.
size_t sparsify(const Images& images, double threshold, bool absolute, size_t* next, size_t room,
                int64_t* site, void* features, Type feature_type);

}  // namespace hepfeed
