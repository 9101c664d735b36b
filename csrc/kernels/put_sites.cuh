// Features of sites, written into dense images.
#pragma once

#include "kernels/batch.h"
#include "port.h"

namespace hepfeed::device {

// out[event, ..., channel, ...] = features[i, channel] of site indices[i]; a site that is not within the
// images is left out and sets *fault.  The images are zero before.
//
// Bytes: the features and indices once, and for each feature the sector of 32 bytes of the image that it lies
// in; clearing the images is the larger part.
template <class Item>
__global__ void scatter_sites(const int32_t* __restrict__ indices, const Item* __restrict__ features,
                              int64_t count, SiteImages images, Item* __restrict__ out,
                              int32_t* __restrict__ fault) {
  const int64_t thread = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (thread >= count * images.channels) return;
  const int64_t site = images.channels == 1 ? thread : thread / images.channels;
  const int64_t channel = images.channels == 1 ? 0 : thread - site * images.channels;
  const int32_t* from = indices + site * (1 + images.axes);
  bool inside = from[0] >= 0 && from[0] < images.events;
  uint64_t number = static_cast<uint64_t>(from[0]);  // unsigned: of a site that is outside it may be anything
#pragma unroll
  for (int axis = 0; axis < kMaxAxes; ++axis) {
    if (axis >= images.axes) break;
    inside &= from[1 + axis] >= 0 && from[1 + axis] < images.shape[axis];
    number = number * static_cast<uint64_t>(images.shape[axis]) + static_cast<uint64_t>(from[1 + axis]);
  }
  if (!inside) {
    atomicOr(fault, 1);
    return;
  }
  const auto cell = static_cast<int64_t>(number);
  const int64_t outer = images.channels == 1 ? cell : cell / images.inner;
  const int64_t place =
      images.channels == 1 ? cell
                           : (outer * images.channels + channel) * images.inner + cell - outer * images.inner;
  out[place] = features[thread];
}

}  // namespace hepfeed::device
