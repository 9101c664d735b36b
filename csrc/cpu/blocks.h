// Sums, means and maxima over blocks of images.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/convert.h"

namespace hepfeed {

enum class Reduce : uint8_t { sum, mean, max };

// out[e, x] = reduction of in[e, q] over the block factor * x <= q < min(factor * (x + 1), shape).
//
// The type of the output is float64 for float64; float32 for float32, for float16, and for means; int64 for
// sums of integers; and that of the input for maxima of integers.  Floats and means are added up as doubles,
// integers as int64; a maximum is NaN where an item is.  `scratch` has room for 8 * shape[axes - 1] bytes
// twice.
//
// Returns false, with the output incomplete, where a sum does not fit int64.
bool reduce_blocks(const uint8_t* in, Type type, uint8_t* out, Reduce reduce, size_t axes,
                   const int64_t* shape, const int64_t* factor, size_t events, uint8_t* scratch);

}  // namespace hepfeed
