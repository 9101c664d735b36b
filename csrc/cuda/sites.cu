#include <stdexcept>

#include "cuda/sites.h"
#include "kernels/sites.cuh"

namespace hepfeed::device {
namespace {

unsigned blocks_for(int64_t items) {
  return static_cast<unsigned>((items + kSiteThreads - 1) / kSiteThreads);
}

unsigned long long* bits(uint64_t* faults) { return reinterpret_cast<unsigned long long*>(faults); }

}  // namespace

SiteGrid grid_of(int64_t events, const std::vector<int64_t>& shape, const std::vector<int64_t>& widths) {
  const size_t dims = shape.size();
  if (dims == 0 || dims > kMostAxes || widths.size() != dims)
    throw std::invalid_argument("images have 1 to 16 axes and a width for each");
  SiteGrid grid{};
  grid.dims = static_cast<int32_t>(dims);
  grid.events = static_cast<int32_t>(events);
  grid.event_step = 1;
  for (size_t d = dims; d-- > 0; grid.event_step *= widths[d]) {
    grid.shape[d] = static_cast<int32_t>(shape[d]);
    grid.step[d] = grid.event_step;
  }
  return grid;
}

void number_sites(const SiteRows& sites, const SiteGrid& grid, int64_t* keys, uint64_t* faults,
                  Stream stream) {
  launch(number_sites_kernel, blocks_for(sites.count), kSiteThreads, 0, stream, sites, grid, keys,
         bits(faults));
}

void find_repeats(const int64_t* keys, int64_t count, uint64_t* faults, Stream stream) {
  launch(find_repeats_kernel, blocks_for(count), kSiteThreads, 0, stream, keys, count, bits(faults));
}

void mark_distinct(const int64_t* keys, int64_t count, int32_t* is_first, Stream stream) {
  launch(mark_distinct_kernel, blocks_for(count), kSiteThreads, 0, stream, keys, count, is_first);
}

void write_distinct(const int64_t* keys, const int32_t* firsts, const int32_t* order, int64_t count,
                    const SiteGrid& grid, int32_t* row_of, int32_t* sites, Stream stream) {
  launch(write_distinct_kernel, blocks_for(count), kSiteThreads, 0, stream, keys, firsts, order, count, grid,
         row_of, sites);
}

void find_sites(const int64_t* keys, const SiteRows& sites, const int32_t* queries, int64_t count,
                const SiteGrid& grid, int32_t* found, Stream stream) {
  launch(find_sites_kernel, blocks_for(count), kSiteThreads, 0, stream, keys, sites, queries, count, grid,
         found);
}

template <class Point, class Event>
void cells_of_points(const Point* points, const Event* events, int64_t count, int32_t dims, int32_t farthest,
                     int32_t* cells, uint64_t* faults, Stream stream) {
  launch(cells_of_points_kernel<Point, Event>, blocks_for(count), kSiteThreads, 0, stream, points, events,
         count, dims, farthest, cells, bits(faults));
}

#define HEPFEED_CELLS(Point, Event)                                                                         \
  template void cells_of_points(const Point*, const Event*, int64_t, int32_t, int32_t, int32_t*, uint64_t*, \
                                Stream)
HEPFEED_CELLS(float, int32_t);
HEPFEED_CELLS(float, int64_t);
HEPFEED_CELLS(double, int32_t);
HEPFEED_CELLS(double, int64_t);
#undef HEPFEED_CELLS

}  // namespace hepfeed::device
