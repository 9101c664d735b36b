// HDF5's fletcher32 checksum.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// Fletcher's checksum over big-endian 16-bit words, as the HDF5 library defines it; an odd last byte is the
// high byte of a last word.
uint32_t fletcher32(const uint8_t* data, size_t bytes);

// True where the four bytes at data[bytes - 4] are the checksum of the bytes before them.
bool fletcher32_matches(const uint8_t* data, size_t bytes);

}  // namespace hepfeed
