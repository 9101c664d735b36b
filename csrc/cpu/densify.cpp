#include "cpu/densify.h"

#include <cstring>
#include <stdexcept>

namespace hepfeed {
namespace {

// The geometry of one event; Dims is that of `shape`, or 0 where it is not known when compiling.
template <size_t Dims>
struct Grid {
  const int64_t* shape;
  size_t dims;

  size_t axes() const { return Dims ? Dims : dims; }

  // The cell of a site, or `cells` outside.
  size_t cell(const int32_t* coordinates, size_t cells) const {
    size_t cell = 0;
    bool inside = true;
    for (size_t d = 0; d < axes(); ++d) {
      const auto extent = static_cast<size_t>(shape[d]);
      const auto x = static_cast<size_t>(static_cast<int64_t>(coordinates[d]));  // huge where below 0
      inside &= x < extent;
      cell = cell * extent + x;
    }
    return inside ? cell : cells;
  }
};

// Event after event, so that an event is written to while its cleared memory is in the cache.
template <class Item, size_t Dims>
size_t fill(Grid<Dims> grid, const int32_t* indices, const Item* features, size_t sites, size_t events,
            size_t channels, size_t inner, Item* images) {
  size_t cells = 1, n = 0;
  for (size_t d = 0; d < grid.axes(); ++d) cells *= static_cast<size_t>(grid.shape[d]);
  const size_t columns = grid.axes() + 1;
  for (size_t e = 0; e < events; ++e, images += cells * channels) {
    std::memset(images, 0, cells * channels * sizeof(Item));
    for (; n < sites && indices[n * columns] == static_cast<int32_t>(e); ++n) {
      const size_t cell = grid.cell(indices + n * columns + 1, cells);
      if (cell == cells) return n;
      if (channels == 1) {
        images[cell] = features[n];
        continue;
      }
      Item* to = images + cell / inner * channels * inner + cell % inner;
      for (size_t c = 0; c < channels; ++c) to[c * inner] = features[n * channels + c];
    }
  }
  return n;
}

}  // namespace

size_t densify(const int32_t* indices, const void* features, size_t sites, const int64_t* shape, size_t dims,
               size_t events, size_t channels, size_t inner, size_t item, void* images) {
  const auto run = [&](auto zero) {
    using Item = decltype(zero);
    const auto fill_grid = [&](auto grid) {
      return fill(grid, indices, static_cast<const Item*>(features), sites, events, channels, inner,
                  static_cast<Item*>(images));
    };
    if (dims == 2) return fill_grid(Grid<2>{shape, dims});
    if (dims == 3) return fill_grid(Grid<3>{shape, dims});
    return fill_grid(Grid<0>{shape, dims});
  };
  switch (item) {
    case 1:
      return run(uint8_t{});
    case 2:
      return run(uint16_t{});
    case 4:
      return run(uint32_t{});
    case 8:
      return run(uint64_t{});
    default:
      throw std::invalid_argument("items have 1, 2, 4 or 8 bytes");
  }
}

}  // namespace hepfeed
