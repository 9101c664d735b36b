// One label of a group of rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// out[g] = label of the row of group g with the largest weight; of several, the first in `order`.  A NaN is
// below every number.
void labels_of_largest(const int64_t* label, const double* weight, const uint32_t* order,
                       const int64_t* starts, size_t groups, int64_t* out);

// out[g] = the label that most rows of group g have; of several, the least.  `scratch` has room for the
// longest group.
void labels_of_majority(const int64_t* label, const uint32_t* order, const int64_t* starts, size_t groups,
                        int64_t* scratch, int64_t* out);

}  // namespace hepfeed
