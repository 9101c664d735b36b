// Which sites a sparse convolution connects: what the maps of all convolutions have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/sort_sites.h"

namespace hepfeed {

// Input site i and output site o are a pair of tap k = (k_0, k_1, ...) where on every axis
//
//   i = o * stride - padding + k * dilation, or, where it is transposed, o = i * stride - padding + k *
//   dilation.
//
// All vectors have an item for each axis.
struct Convolution {
  std::vector<int64_t> shape, out_shape, kernel, stride, padding, dilation;
  bool transposed;

  size_t dims() const { return shape.size(); }
  size_t taps() const;
};

// Pairs of some consecutive sites: those of tap k are starts[k] .. starts[k + 1] - 1.
struct PairBlock {
  std::vector<int32_t> in, out;
  std::vector<size_t> starts;
  std::vector<size_t> place;  // in the arrays of the map, of the first pair of each tap
};

// Where a map is written to; sizes are those of `offsets`.
struct PairArrays {
  int32_t *in, *out;            // pairs of each tap by output row
  int32_t *back_in, *back_out;  // the same, swapped, by input row; null where the sites are sorted
};

// Sites of a block, whose numbers fit the first-level cache.
constexpr size_t kMapBlock = 1 << 12;

constexpr int64_t kNumbersEnd = std::numeric_limits<int64_t>::max();  // above all numbers
constexpr size_t kNumbersWindow = 4;

// Numbers of the sites in rising order, and kNumbersWindow times kNumbersEnd behind the last.  Throws
// std::invalid_argument where a site is outside, or numbers do not rise.
std::unique_ptr<int64_t[]> rising_numbers(const SiteRows& sites, const int32_t* order,
                                          const Numbering& numbering, int threads);

// Sums of the sizes before each item, and of all.
std::vector<int64_t> offsets_of(const std::vector<int64_t>& sizes);

// Gives the blocks, first to last, their places for the first `taps` taps, so that for each tap they lie one
// after another from offsets[tap] on.
void place_blocks(const std::vector<PairBlock*>& blocks, const std::vector<int64_t>& offsets, size_t taps);

// Sorts the pairs of one tap by their keys, which are distinct rows below `rows`.
void sort_pairs(const int32_t* key, const int32_t* value, size_t count, size_t rows, int32_t* key_out,
                int32_t* value_out);

}  // namespace hepfeed
