// Stored cells and values as dense images, or as sites.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hepfeed {

// Cells of some events: cells[e] is where the counts[e] cells of event e lie, unsigned numbers of cell_bytes
// bytes, of any alignment.  They are not trusted.
struct CellRuns {
  const uint8_t* const* cells;
  const int64_t* counts;
  size_t events;
  size_t cell_bytes;
};

// Images to fill: event e has its values (item after item, of any alignment) at values[e] and its image of
// `volume` items at images[e].
struct ImageRuns {
  const uint8_t* const* values;
  uint8_t* const* images;
  size_t volume;
  size_t item_bytes;
};

// images[e][:] = 0, then images[e][cells[e][i]] = values[e][i] for i in order; faults[e] is a Fault, and
// nothing outside of the image is written in any case.  The images are visible to other threads and
// processes once it returns.
void fill_images(const CellRuns& runs, const ImageRuns& images, bool guarded, uint8_t* faults);

// Rows (first_event + e, coordinates over `shape` of cells[e][i]) at `indices`, (sum of counts, 1 + dims);
// faults[e] is a Fault.  Throws std::bad_alloc.
void unravel_cells(const CellRuns& runs, const std::vector<int64_t>& shape, int32_t first_event,
                   int32_t* indices, bool guarded, uint8_t* faults);

}  // namespace hepfeed
