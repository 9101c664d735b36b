// Which sites a sparse convolution connects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hepfeed {

// Output site o and tap k = (k_0, k_1, ...) take input site i where i = o * stride - padding + k * dilation
// on every axis.  All vectors have an item for each axis.
struct Convolution {
  std::vector<int64_t> shape, out_shape, kernel, stride, padding, dilation;

  size_t dims() const { return shape.size(); }
  size_t taps() const;
};

struct Pair {
  int32_t in, out;  // rows
};

// For each tap, in C order, its pairs sorted by output row.
using Pairs = std::vector<std::vector<Pair>>;

// Sites of outputs, by (event, cell).
struct Outputs {
  std::vector<int64_t> cell;
  std::vector<int64_t> offsets;  // (events + 1)
};

// The first row of `indices` (sites, 1 + D) that is outside of (events, shape) or not above the row before it
// in (event, coordinates); or `sites`.
size_t first_unsorted(const int32_t* indices, size_t sites, const std::vector<int64_t>& shape, size_t events);

// Pairs where outputs are the inputs: stride 1, odd kernels, padding = dilation * (kernel / 2).  The product
// of events and shape, each widened by its padding, is below 2^63.
//
// For one tap the input row rises with the output row, so rows are found by merging; and tap K - 1 - k has
// the pairs of tap k, turned round.
void submanifold_pairs(const Convolution& convolution, const int32_t* indices, size_t sites, Pairs& pairs);

// Pairs, and outputs wherever some input is active; there are less than 2^60 cells in out_shape.  Throws
// std::length_error for 2^31 outputs and more.
void pairs_and_outputs(const Convolution& convolution, const int32_t* indices, size_t sites, size_t events,
                       Pairs& pairs, Outputs& outputs);

}  // namespace hepfeed
