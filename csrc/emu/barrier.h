// __syncthreads and its votes.
#pragma once

#include "emu/place.h"

namespace hepfeed::emulated {

enum class Vote { kNone, kOr, kAnd, kCount };

// Waits until every thread of the block waits at this place; returns the vote of all, on each the same.
// Throws Fault where a thread waits elsewhere or has ended.
int meet_block(Vote vote, bool value, Place place);

}  // namespace hepfeed::emulated

inline void __syncthreads(hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  hepfeed::emulated::meet_block(hepfeed::emulated::Vote::kNone, false, place);
}

inline int __syncthreads_or(int value, hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return hepfeed::emulated::meet_block(hepfeed::emulated::Vote::kOr, value != 0, place);
}

inline int __syncthreads_and(int value, hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return hepfeed::emulated::meet_block(hepfeed::emulated::Vote::kAnd, value != 0, place);
}

inline int __syncthreads_count(int value, hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {
  return hepfeed::emulated::meet_block(hepfeed::emulated::Vote::kCount, value != 0, place);
}
