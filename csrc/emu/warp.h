// What the lanes of a warp do together.
#pragma once

#include <cstdint>
#include <cstring>

#include "emu/place.h"

namespace hepfeed::emulated {

// How a lane names the lane that it reads, as in PTX's shfl.sync.
enum class Shuffle { kIndex, kUp, kDown, kXor };

// Waits until every lane of the mask waits at this place, with this mask.  Each of these throws Fault where
// the mask lacks the lane itself, or names one that has ended, is not there, or does something else.
void meet_warp(unsigned mask, Place place);

// Returns what the lane named by `kind` and `operand` gave as `value`, within segments of `width` lanes.
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width, Place place);

// Returns the lanes of the mask that gave true.
unsigned ballot(unsigned mask, bool value, Place place);

template <class T>
T shuffle_value(Shuffle kind, unsigned mask, T value, int operand, int width, Place place) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(kind, mask, bits, operand, width, place);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace hepfeed::emulated

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  hepfeed::emulated::meet_warp(mask, place);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return shuffle_value(hepfeed::emulated::Shuffle::kIndex, mask, value, lane, width, place);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return shuffle_value(hepfeed::emulated::Shuffle::kUp, mask, value, static_cast<int>(delta), width, place);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return shuffle_value(hepfeed::emulated::Shuffle::kDown, mask, value, static_cast<int>(delta), width, place);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return shuffle_value(hepfeed::emulated::Shuffle::kXor, mask, value, lanes, width, place);
}

inline unsigned __ballot_sync(unsigned mask, int value,
                              hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return hepfeed::emulated::ballot(mask, value != 0, place);
}

inline int __any_sync(unsigned mask, int value,
                      hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return hepfeed::emulated::ballot(mask, value != 0, place) != 0;
}

inline int __all_sync(unsigned mask, int value,
                      hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return hepfeed::emulated::ballot(mask, value != 0, place) == mask;
}
