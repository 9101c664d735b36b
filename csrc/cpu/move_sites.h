// Sites of sparse images that are reversed and shifted: no two meet, and their order is found without
// sorting.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// The sites of a batch: rows of (event, coordinates), sorted, each once, and a row of features for each.
struct Sites {
  const int32_t* indices;  // (count, 1 + axes)
  const uint8_t* features;
  size_t count;
  size_t axes;
  size_t feature_bytes;  // of one site
};

// Writes each site with the coordinate x' = (reversed ? length - 1 - x : x) - origin along each axis, if all
// of them are within `shape`; sorted again.  Returns how many there are.
//
//   reversed  (events, axes), or null for none      lengths  (axes) of the images
//   origin    (events, axes), or null for 0         shape    (axes) of the result
//   indices   room for (count, 1 + axes)            features room for count rows
//
// Throws std::invalid_argument where the sites are not sorted by events 0 .. events - 1.
size_t move_sites(const Sites& sites, int64_t events, const uint8_t* reversed, const int64_t* origin,
                  const int64_t* lengths, const int64_t* shape, int32_t* indices, uint8_t* features);

}  // namespace hepfeed
