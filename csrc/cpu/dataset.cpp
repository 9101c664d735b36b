#include "cpu/dataset.h"

#include <stdexcept>

namespace hepfeed {

void Dataset::prepare() {
  if (shape.empty()) throw std::invalid_argument("a data set needs an event axis");
  if (item == 0 || out_item == 0) throw std::invalid_argument("item size is zero");
  if (converts() && (type == Type::opaque || out_type == Type::opaque))
    throw std::invalid_argument("items without a number type can't be converted");
  if (!converts() && item != out_item) throw std::invalid_argument("equal types of different sizes");
  if (fill.size() != item) throw std::invalid_argument("fill value of a wrong size");
  row_items = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) row_items *= shape[axis];
  if (chunk.empty()) {
    if (!filters.empty()) throw std::invalid_argument("contiguous storage has no filters");
    return;
  }
  if (chunk.size() != shape.size()) throw std::invalid_argument("chunk and shape differ in their number of axes");
  chunk_items = 1;
  chunks_per_row = 1;
  grid.clear();
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (chunk[axis] <= 0) throw std::invalid_argument("a chunk has an axis of length zero");
    grid.push_back((shape[axis] + chunk[axis] - 1) / chunk[axis]);
    chunk_items *= chunk[axis];
    if (axis > 0) chunks_per_row *= grid[axis];
  }
  const auto chunks = static_cast<size_t>(grid[0] * chunks_per_row);
  if (chunk_offset.size() != chunks || chunk_size.size() != chunks || chunk_mask.size() != chunks)
    throw std::invalid_argument("chunk table of a wrong length");
  if (filters.size() > kMaxFilters) throw std::invalid_argument("too many filters");
  bool deflated = false;
  for (int filter : filters) {
    if (filter < 1 || filter > 3) throw std::invalid_argument("a filter that is not decoded here");
    if (deflated && filter != static_cast<int>(Filter::fletcher32))
      throw std::invalid_argument("after deflate only fletcher32 is decoded here");
    deflated = deflated || filter == static_cast<int>(Filter::deflate);
  }
}

}  // namespace hepfeed
