// Features of sites to dense images, and back; see kernels/densify.cuh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "launch.h"

namespace hepfeed::device {

// Dense images (events, channels, *shape), or (events, *shape, channels); items have `item` bytes, 1, 2, 4, 8
// or 16.
struct ImageShape {
  std::vector<int64_t> shape;  // 16 axes at most
  int64_t events, channels;
  size_t item;
  bool channels_first;
};

// Writes features (sites, channels) into images that are 0; sites outside of them are left out.  indices
// (sites, 1 + axes), no two equal.  Throws std::invalid_argument for too many axes or items of another size.
void densify(const void* features, const int32_t* indices, int64_t sites, const ImageShape& images,
             void* dense, Stream stream);

// Reads features out of images, 0 for sites outside of them.
void take_sites(const void* dense, const int32_t* indices, int64_t sites, const ImageShape& images,
                void* features, Stream stream);

}  // namespace hepfeed::device
