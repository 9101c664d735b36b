// The map of a submanifold convolution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/kernel_map.h"

namespace hepfeed {

// The map of sites onto themselves: stride 1, odd kernels, padding = dilation * (kernel / 2).
//
// For one tap the input place rises with the output place, so sites are found by merging; and tap K - 1 - k
// has the pairs of tap k, turned round.
class SubmanifoldMap {
 public:
  // `order` lists rows by place, null where they lie so; it is borrowed.  Throws std::invalid_argument where
  // a site is outside or places do not rise.
  SubmanifoldMap(const Convolution& convolution, const SiteRows& sites, const int32_t* order, size_t events,
                 int threads);

  const std::vector<int64_t>& offsets() const { return offsets_; }  // (taps + 1)
  void write(const PairArrays& arrays, int threads) const;

 private:
  void write_in_order(const PairArrays& arrays, int threads) const;
  void write_by_rows(const PairArrays& arrays, int threads) const;

  const int32_t* order_;
  size_t count_, taps_;
  std::vector<PairBlock> blocks_;  // of taps before the centre, by places
  std::vector<int64_t> offsets_;
};

}  // namespace hepfeed
