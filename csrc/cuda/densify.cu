#include <algorithm>
#include <stdexcept>

#include "cuda/densify.h"
#include "cuda/row_shape.h"
#include "kernels/densify.cuh"

namespace hepfeed::device {
namespace {

// Channels that lie side by side in both arrays go together, in items of 16 bytes at most.
ImageShape with_wide_items(ImageShape images, const void* features, const void* dense) {
  if (images.channels_first) return images;
  const uintptr_t places = reinterpret_cast<uintptr_t>(features) | reinterpret_cast<uintptr_t>(dense);
  while (images.item < 16 && images.channels % 2 == 0 && places % (2 * images.item) == 0) {
    images.item *= 2;
    images.channels /= 2;
  }
  return images;
}

template <class Item, bool back>
void copy(const void* features, const int32_t* indices, int64_t sites, const ImageShape& given,
          const void* dense, Stream stream) {
  Images images{};
  images.axes = static_cast<int32_t>(given.shape.size());
  images.events = given.events;
  images.channels = given.channels;
  images.channels_first = given.channels_first;
  images.cells = 1;
  for (size_t d = 0; d < given.shape.size(); ++d) images.cells *= images.shape[d] = given.shape[d];
  const int64_t groups = kDensifyThreads / std::min<int64_t>(given.channels, kDensifyThreads);
  launch(copy_sites<Item, back>, blocks_for(sites, groups), dim3(kDensifyThreads), 0, stream,
         static_cast<Item*>(const_cast<void*>(features)), indices, sites, images,
         static_cast<Item*>(const_cast<void*>(dense)));
}

template <bool back>
void copy_items(const void* features, const int32_t* indices, int64_t sites, const ImageShape& given,
                const void* dense, Stream stream) {
  if (given.shape.size() > kMaxAxes)
    throw std::invalid_argument("images have 16 axes at most, not " + std::to_string(given.shape.size()));
  if (given.channels == 0) return;
  const ImageShape images = with_wide_items(given, features, dense);
  switch (images.item) {
    case 1:
      return copy<uint8_t, back>(features, indices, sites, images, dense, stream);
    case 2:
      return copy<uint16_t, back>(features, indices, sites, images, dense, stream);
    case 4:
      return copy<uint32_t, back>(features, indices, sites, images, dense, stream);
    case 8:
      return copy<uint64_t, back>(features, indices, sites, images, dense, stream);
    case 16:
      return copy<uint4, back>(features, indices, sites, images, dense, stream);
    default:
      throw std::invalid_argument("items have 1, 2, 4, 8 or 16 bytes, not " + std::to_string(images.item));
  }
}

}  // namespace

void densify(const void* features, const int32_t* indices, int64_t sites, const ImageShape& images,
             void* dense, Stream stream) {
  copy_items<false>(features, indices, sites, images, dense, stream);
}

void take_sites(const void* dense, const int32_t* indices, int64_t sites, const ImageShape& images,
                void* features, Stream stream) {
  copy_items<true>(features, indices, sites, images, dense, stream);
}

}  // namespace hepfeed::device
