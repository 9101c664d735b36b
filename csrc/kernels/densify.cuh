// Features of sites to dense images, and back.
#pragma once

#include <cstdint>

#include "port.h"

namespace hepfeed::device {

constexpr int kMaxAxes = 16;
constexpr int kDensifyThreads = 256;

// Dense images (events, channels, *shape), or (events, *shape, channels).
struct Images {
  int64_t shape[kMaxAxes];
  int32_t axes;
  int64_t events, cells;  // cells of an event
  int64_t channels;
  bool channels_first;

  // Where channel 0 of a site (event, coordinates) lies, or -1 outside of the images.
  __device__ int64_t place(const int32_t* site) const {
    bool inside = site[0] >= 0 && site[0] < events;
    int64_t cell = 0;
    for (int d = 0; d < axes; ++d) {
      inside &= site[1 + d] >= 0 && site[1 + d] < shape[d];
      cell = cell * shape[d] + site[1 + d];
    }
    const int64_t first =
        channels_first ? site[0] * channels * cells + cell : (site[0] * cells + cell) * channels;
    return inside ? first : -1;
  }
};

// Writes features (sites, channels) into images that are 0, or, where `back`, reads them out of images.  A
// site outside of the images is left out; what is read there is 0.  Items are as large as the numbers, or
// several of them: nothing is computed with them.
//
// Neighbouring threads take the channels of a site: features are read or written together.
template <class Item, bool back>
__global__ void __launch_bounds__(kDensifyThreads)
    copy_sites(Item* features, const int32_t* indices, int64_t sites, Images images, Item* dense) {
  const int width = images.channels < kDensifyThreads ? static_cast<int>(images.channels) : kDensifyThreads;
  const int groups = kDensifyThreads / width, group = static_cast<int>(threadIdx.x) / width;
  const int64_t site = static_cast<int64_t>(blockIdx.x) * groups + group;
  if (group >= groups || site >= sites) return;
  const int64_t place = images.place(indices + site * (images.axes + 1));
  const int64_t step = images.channels_first ? images.cells : 1;
  for (int64_t c = static_cast<int>(threadIdx.x) % width; c < images.channels; c += width) {
    Item& feature = features[site * images.channels + c];
    if constexpr (back)
      feature = place < 0 ? Item{} : dense[place + c * step];
    else if (place >= 0)
      dense[place + c * step] = feature;
  }
}

}  // namespace hepfeed::device
