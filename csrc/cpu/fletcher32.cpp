#include "cpu/fletcher32.h"

namespace hepfeed {
namespace {

inline uint32_t fold(uint32_t sum) { return (sum & 0xffff) + (sum >> 16); }

}  // namespace

uint32_t fletcher32(const uint8_t* data, size_t bytes) {
  constexpr size_t kWordsBeforeOverflow = 360;  // the second sum stays below 2^32 for so many words
  uint32_t low = 0, high = 0;
  size_t words = bytes / 2;
  while (words > 0) {
    const size_t block = words < kWordsBeforeOverflow ? words : kWordsBeforeOverflow;
    for (size_t i = 0; i < block; ++i, data += 2) {
      low += (static_cast<uint32_t>(data[0]) << 8) | data[1];
      high += low;
    }
    words -= block;
    low = fold(low);
    high = fold(high);
  }
  if (bytes % 2) {
    low += static_cast<uint32_t>(*data) << 8;
    high += low;
    low = fold(low);
    high = fold(high);
  }
  return (fold(high) << 16) | fold(low);
}

bool fletcher32_matches(const uint8_t* data, size_t bytes) {
  if (bytes < 4) return false;
  const uint8_t* tail = data + bytes - 4;
  const uint32_t sum = fletcher32(data, bytes - 4);
  const uint32_t stored = static_cast<uint32_t>(tail[0]) | static_cast<uint32_t>(tail[1]) << 8 |
                          static_cast<uint32_t>(tail[2]) << 16 | static_cast<uint32_t>(tail[3]) << 24;
  // Files of HDF5 before 1.6.3 hold the two bytes of each half swapped; the library accepts both, and so do
  // we.
  const uint32_t swapped = ((sum & 0x00ff00ffu) << 8) | ((sum & 0xff00ff00u) >> 8);
  return stored == sum || stored == swapped;
}

}  // namespace hepfeed
