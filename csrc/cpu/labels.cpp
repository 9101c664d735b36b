#include "cpu/labels.h"

#include <algorithm>

namespace hepfeed {

void labels_of_largest(const int64_t* label, const double* weight, const uint32_t* order,
                       const int64_t* starts, size_t groups, int64_t* out) {
  for (size_t g = 0; g < groups; ++g) {
    uint32_t best = order[starts[g]];
    for (int64_t i = starts[g] + 1; i < starts[g + 1]; ++i) {
      const double challenger = weight[order[i]], holder = weight[best];
      if (challenger > holder || (holder != holder && challenger == challenger)) best = order[i];
    }
    out[g] = label[best];
  }
}

void labels_of_majority(const int64_t* label, const uint32_t* order, const int64_t* starts, size_t groups,
                        int64_t* scratch, int64_t* out) {
  for (size_t g = 0; g < groups; ++g) {
    const auto count = static_cast<size_t>(starts[g + 1] - starts[g]);
    if (count == 1) {
      out[g] = label[order[starts[g]]];
      continue;
    }
    for (size_t i = 0; i < count; ++i) scratch[i] = label[order[starts[g] + static_cast<int64_t>(i)]];
    std::sort(scratch, scratch + count);
    size_t most = 0;
    for (size_t first = 0, last; first < count; first = last) {
      for (last = first + 1; last < count && scratch[last] == scratch[first];) ++last;
      if (last - first > most) {
        most = last - first;
        out[g] = scratch[first];
      }
    }
  }
}

}  // namespace hepfeed
