#include "emu/lanes.h"

#include "emu/processor.h"
#include "emu/sanitizers.h"

namespace hepfeed::emulated {
namespace {

bool meets(const Thread& a, const Thread& b) {
  return a.mask == b.mask && a.work == b.work && a.place == b.place;
}

}  // namespace

void meet_lanes(unsigned mask, WarpWork work, void* payload, bool ordered, Place place) {
  Processor& processor = Processor::here();
  Block& block = processor.block();
  Thread& self = processor.current();
  Warp& warp = block.warp_of(self);
  const unsigned lane = self.number % kLanes;
  if ((mask >> lane & 1u) == 0) processor.fault("a lane that its own mask doesn't name", place);
  if ((mask & ~warp.present) != 0)
    processor.fault("a mask names a lane that has ended or isn't of the block", place);
  self.place = place;
  self.mask = mask;
  self.work = work;
  self.payload = payload;
  if (ordered) release(&warp.lane_tokens[lane]);
  warp.waiting |= 1u << lane;

  Thread* lanes[kLanes] = {};
  bool complete = (warp.waiting & mask) == mask;
  for (unsigned other = 0; other < kLanes && complete; ++other) {
    if ((mask >> other & 1u) == 0) continue;
    lanes[other] = &block.threads[self.number - lane + other];
    complete = meets(*lanes[other], self);
  }
  if (!complete) {
    self.state = State::kInWarp;
    processor.wait();
    if (ordered) acquire(self.warp_token);
    return;
  }
  if (work != nullptr) work(lanes, place);
  void* const token = &warp.meeting_tokens[warp.meetings++ % sizeof warp.meeting_tokens];
  if (ordered) {
    for (unsigned other = 0; other < kLanes; ++other)
      if (lanes[other] != nullptr) acquire(&warp.lane_tokens[other]);
    release(token);
  }
  warp.waiting &= ~mask;
  for (Thread* other : lanes) {
    if (other == nullptr || other == &self) continue;
    other->warp_token = token;
    processor.resume(*other);
  }
  if (processor.random() != nullptr) processor.give_way();
}

}  // namespace hepfeed::emulated
