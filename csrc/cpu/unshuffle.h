// HDF5's shuffle filter, undone: the bytes of `count` items lie as `item` planes, one for each byte of an
// item.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// out[i * item + b] = in[b * count + i] for i < count, b < item.  `in` and `out` must not overlap.
void unshuffle(const uint8_t* in, uint8_t* out, size_t count, size_t item);

}  // namespace hepfeed
