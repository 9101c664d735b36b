// Images of few non-zero items as cells (their numbers in C order) and values, for storage.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// Images of one batch, one after another; data need not be aligned.
struct ImageBlock {
  const uint8_t* data;
  size_t events;
  size_t volume;      // items of one event
  size_t item_bytes;  // 1, 2, 4, 8 or 16
};

// counts[e] = number of items of event e with a bit that is set.
void count_cells(const ImageBlock& images, int64_t* counts);

// Room that pack_image() needs behind what it returns.
constexpr size_t kPackRoom = 16;

// The items of event `e` with a bit that is set, in order: their number within the event to `cells`
// (unsigned, of 2, 4 or 8 bytes), the item to `values`; both have room for images.volume + kPackRoom items.
// Returns how many they are.
size_t pack_image(const ImageBlock& images, size_t e, size_t cell_bytes, uint8_t* cells, uint8_t* values);

// cells[i] = number in C order over `shape` of the site indices[i, 1:]; indices is (rows, 1 + dims).
// Returns the first site outside of shape, or `rows`.
size_t ravel_sites(const int32_t* indices, size_t rows, const int64_t* shape, size_t dims, size_t cell_bytes,
                   uint8_t* cells);

}  // namespace hepfeed
