// Sums of points in the cells of a dense grid.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/convert.h"

namespace hepfeed {

// out[e, c] = sum of weight[i] over the points i of event e with cell[i] == c, added in order of i in float64
// and rounded once; every weight is 1 where `weight` is null.  Points with cell[i] < 0 are left out.
//
//   offsets (events + 1) points of each event
//   sums    (cells) scratch
void histogram(const int64_t* cell, const void* weight, Type weight_type, const int64_t* offsets,
               size_t events, size_t cells, double* sums, float* out);

}  // namespace hepfeed
