#include "cpu/dataset.h"

#include <algorithm>
#include <stdexcept>

namespace hepfeed {
namespace {

constexpr size_t kSlabBytes = size_t{1} << 21;  // stays in a second-level cache of today
constexpr size_t kMaxAxes = 32;

// Calls run(event_item, chunk_item, items) for the part of an event that a chunk covers, in pieces that lie
// together in both: offsets within the event, and within the chunk's slice of that event.
template <class Run>
void for_each_run(const Dataset& set, int64_t chunk, Run run) {
  const size_t axes = set.shape.size();
  int64_t begin[kMaxAxes], length[kMaxAxes], event_stride[kMaxAxes], chunk_stride[kMaxAxes];
  int64_t rest = chunk, event_step = 1, chunk_step = 1;
  for (size_t axis = axes; axis-- > 1;) {
    begin[axis] = rest % set.grid[axis] * set.chunk[axis];
    rest /= set.grid[axis];
    length[axis] = std::min(set.chunk[axis], set.shape[axis] - begin[axis]);
    event_stride[axis] = event_step;
    chunk_stride[axis] = chunk_step;
    event_step *= set.shape[axis];
    chunk_step *= set.chunk[axis];
  }
  // A piece spans the last axis, and further ones as long as the chunk covers them whole.
  size_t outer = axes;
  int64_t items = 1, base = 0;
  while (outer > 1) {
    --outer;
    items *= length[outer];
    base += begin[outer] * event_stride[outer];
    if (set.chunk[outer] != set.shape[outer]) break;
  }
  for (size_t axis = 1; axis < outer; ++axis) base += begin[axis] * event_stride[axis];
  int64_t index[kMaxAxes] = {0};
  for (;;) {
    int64_t event_item = base, chunk_item = 0;
    for (size_t axis = 1; axis < outer; ++axis) {
      event_item += index[axis] * event_stride[axis];
      chunk_item += index[axis] * chunk_stride[axis];
    }
    run(event_item, chunk_item, items);
    size_t axis = outer;
    while (axis-- > 1) {
      if (++index[axis] < length[axis]) break;
      index[axis] = 0;
    }
    if (axis == 0) return;
  }
}

}  // namespace

const std::vector<Span>& Dataset::slab_spans(int64_t slab) {
  auto& spans = spans_[static_cast<size_t>(slab)];
  if (!spans.empty()) return spans;
  std::vector<Run> runs;
  for (int64_t i = 0; i < slab_chunks; ++i) {
    for_each_run(*this, slab * slab_chunks + i, [&](int64_t event_item, int64_t chunk_item, int64_t items) {
      runs.push_back({static_cast<uint32_t>(event_item * out_item),
                      static_cast<uint32_t>((i * chunk_items + chunk_item) * out_item),
                      static_cast<uint32_t>(items * out_item)});
    });
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.event_byte < b.event_byte; });
  for (const Run& run : runs) {
    if (spans.empty() || spans.back().event_byte + spans.back().bytes != run.event_byte)
      spans.push_back({run.event_byte, 0, {}});
    spans.back().bytes += run.bytes;
    spans.back().runs.push_back(run);
  }
  return spans;
}

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
  if (chunk.size() != shape.size())
    throw std::invalid_argument("chunk and shape differ in their number of axes");
  chunk_items = 1;
  chunks_per_row = 1;
  grid.clear();
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (chunk[axis] <= 0) throw std::invalid_argument("a chunk has an axis of length zero");
    grid.push_back((shape[axis] + chunk[axis] - 1) / chunk[axis]);
    chunk_items *= chunk[axis];
    if (axis > 0) chunks_per_row *= grid[axis];
  }
  if (shape.size() > kMaxAxes) throw std::invalid_argument("too many axes");
  if (std::max(out_row_bytes(), chunk_out_bytes()) > UINT32_MAX)
    throw std::invalid_argument("an event or chunk of 4 GiB or more");
  // As many trailing axes of the grid as fit.
  slab_chunks = 1;
  for (size_t axis = shape.size(); axis-- > 1;) {
    if (static_cast<size_t>(slab_chunks * grid[axis]) * chunk_out_bytes() > kSlabBytes) break;
    slab_chunks *= grid[axis];
  }
  spans_.assign(static_cast<size_t>(chunks_per_row / slab_chunks), {});
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
