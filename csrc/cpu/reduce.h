// One value of a group of rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/convert.h"

namespace hepfeed {

enum class Reduction { sum, mean, max };

// Columns of numbers: item (row, c) is at data[row * row_stride + c].
struct Columns {
  const void* data;
  Type type;
  size_t row_stride;
  size_t count;
};

// out[g, c] = reduction of in[order[i], c] over i in [starts[g], starts[g + 1]), for `groups` groups of one
// row or more; out has the type `out_type` and out_stride items a row.
//
// Numbers are added in the order of i: in float64 where the input or the output has floating point, else in
// 64-bit integers.  The maximum of numbers with a NaN is NaN.  `out_type` is f4 or the type of the input.
// Returns the first group whose integer sum does not fit the type, or `groups`.
size_t reduce_groups(const Columns& in, const uint32_t* order, const int64_t* starts, size_t groups,
                     Reduction reduction, void* out, Type out_type, size_t out_stride);

}  // namespace hepfeed
