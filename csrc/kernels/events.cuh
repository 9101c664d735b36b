// The items of events that lie one after another, and which of them a thread takes.
#pragma once

#include "kernels/numbers.cuh"
#include "port.h"

namespace hepfeed::device {

// Up to four items of one event: items 4 number .. 4 number + 3 of it, of which `first` is the place in the
// array.
struct Quad {
  int64_t event;
  int64_t number;
  int64_t first;
  int count;
};

// The last of `count` whose beginning is not above `place`; the first one where all are.
template <class Place, class Begin>
__device__ inline int64_t last_before(int64_t count, Place place, const Begin& begin) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (begin(middle) <= place)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// The quad of a thread.  Event e begins at thread `start / 4 + e`, rounded down: that leaves room for all
// quads of every event, whatever their lengths, so that the host need not know them; threads in between have
// no items.  quads_of() in cuda/images.cu counts the threads.
__device__ inline Quad quad_of(const Events& events, int64_t thread) {
  const auto start = [&](int64_t event) { return events.offsets[event] * events.width; };
  const int64_t event =
      last_before(events.count, thread, [&](int64_t each) { return start(each) / kFour + each; });
  const int64_t number = thread - (start(event) / kFour + event), first = start(event) + kFour * number;
  const int64_t left = start(event + 1) - first;
  return {event, number, first, left < 0 ? 0 : static_cast<int>(left < kFour ? left : kFour)};
}

}  // namespace hepfeed::device
