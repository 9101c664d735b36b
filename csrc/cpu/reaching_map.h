// The map of a convolution, or a transposed one, with outputs wherever an input reaches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/kernel_map.h"

namespace hepfeed {

// The map of sites onto all places that they reach.
//
// Axes are done one after another: for one tap of an axis places rise with the places they come from, so the
// places that all of its taps reach are found by merging as many sorted lists.
class ReachingMap {
 public:
  // As of SubmanifoldMap; throws std::length_error for 2^31 outputs and more.
  ReachingMap(const Convolution& convolution, const SiteRows& sites, const int32_t* order, size_t events,
              int threads);

  const std::vector<int64_t>& offsets() const { return offsets_; }  // (taps + 1)
  size_t outputs() const { return outputs_; }
  void write(const PairArrays& arrays, int threads) const;

  // indices (outputs, 1 + dims): sorted.
  void write_outputs(int32_t* indices, int threads) const;

 private:
  struct Slab {
    PairBlock pairs;  // outputs are counted from the first one of the slab
    std::vector<int64_t> places;
    size_t first;  // of the outputs
  };

  size_t taps_, dims_, outputs_, rows_;  // rows: of inputs
  std::vector<int> bits_;                // of a place, for each axis
  std::vector<Slab> slabs_;
  std::vector<int64_t> offsets_;
};

}  // namespace hepfeed
