// Numbers of the cells (in C order of a grid) that sites and points lie in, and back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/convert.h"

namespace hepfeed {

// What becomes of a point that is not in the grid.
enum class Outside { drop, clip };

// How the points' coordinates along one axis become bins.
//
// With edges == nullptr, bin = floor((x - low) / size) in float64; else edges[bin] <= x < edges[bin + 1],
// edges being `count` + 1 rising numbers, and the last edge belongs to the last bin where `last_closed`.
struct Axis {
  const void* data;  // item i at data[i * stride]
  Type type;
  size_t stride;
  double low;
  double size;
  int64_t count;
  const double* edges;
  bool last_closed;
};

// cell[i] of point i, or -1 where it is outside and dropped.  Returns the first point that has a NaN, or
// `rows`.
size_t cells_of_points(const Axis* axes, size_t dims, size_t rows, Outside outside, int64_t* cell);

// cell[i] of the site coords[i, :], or -1 where it is outside of shape or keep[i] is 0; keep may be null.
void cells_of_sites(const int64_t* coords, size_t rows, size_t dims, const int64_t* shape,
                    const uint8_t* keep, int64_t* cell);

// indices[i, :] = (event, coordinates) of cell[i]; rows of event e are offsets[e] .. offsets[e + 1] - 1.
void sites_of_cells(const int64_t* cell, const int64_t* offsets, size_t events, const int64_t* shape,
                    size_t dims, int32_t* indices);

}  // namespace hepfeed
