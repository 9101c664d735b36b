// Launchers of kernels/sites.cuh, which describes the arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/site_grid.h"
#include "launch.h"

namespace hepfeed::device {

// Images of `shape`, whose keys leave room for `widths` of cells, none less than the shape.
SiteGrid grid_of(int64_t events, const std::vector<int64_t>& shape, const std::vector<int64_t>& widths);

void number_sites(const SiteRows& sites, const SiteGrid& grid, int64_t* keys, uint64_t* faults,
                  Stream stream);
void find_repeats(const int64_t* keys, int64_t count, uint64_t* faults, Stream stream);
void mark_distinct(const int64_t* keys, int64_t count, int32_t* is_first, Stream stream);
void write_distinct(const int64_t* keys, const int32_t* firsts, const int32_t* order, int64_t count,
                    const SiteGrid& grid, int32_t* row_of, int32_t* sites, Stream stream);
void find_sites(const int64_t* keys, const SiteRows& sites, const int32_t* queries, int64_t count,
                const SiteGrid& grid, int32_t* found, Stream stream);

// Points are float or double, events int32_t or int64_t.
template <class Point, class Event>
void cells_of_points(const Point* points, const Event* events, int64_t count, int32_t dims, int32_t farthest,
                     int32_t* cells, uint64_t* faults, Stream stream);

}  // namespace hepfeed::device
