// Stable radix sort of keys with a row number each.  The caller gives the work space.
#pragma once

#include <cstddef>
#include <cstdint>

#include "launch.h"

namespace hepfeed::device {

// Bytes of work space for `count` pairs whose keys have `end_bit` bits.
size_t sort_pairs_bytes(int64_t count, int end_bit);

// Sorts pairs by the lower `end_bit` (1 to 64) bits of their keys, which are 0 above; those of one key keep
// their order. No array may overlap another.
void sort_pairs(void* work, size_t bytes, const uint64_t* keys_in, uint64_t* keys_out,
                const int32_t* values_in, int32_t* values_out, int64_t count, int end_bit, Stream stream);

}  // namespace hepfeed::device
