// A row of results that are rounded when all of them are there.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/bfloat16.h"

namespace hepfeed {

// Scratch memory for the rows of one thread.  Rounding in one loop over a whole row makes it vector code.
template <class T>
class WideRow {
 public:
  explicit WideRow(size_t count) : count_(count) {
    if constexpr (kRounds) wide_.resize(count);
  }

  // Calls fill(row) for a row of wide numbers, of which `out` has the rounded ones then.
  template <class Fill>
  HEPFEED_INLINE void of(T* out, const Fill& fill) {
    if constexpr (kRounds) {
      fill(wide_.data());
      for (size_t c = 0; c < count_; ++c) out[c] = narrow<T>(wide_[c]);
    } else {
      fill(out);
    }
  }

 private:
  static constexpr bool kRounds = sizeof(T) < sizeof(Wide<T>);

  size_t count_;
  std::vector<Wide<T>> wide_;
};

}  // namespace hepfeed
