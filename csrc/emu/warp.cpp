#include "emu/warp.h"

#include "emu/block.h"
#include "emu/fault.h"
#include "emu/lanes.h"
#include "emu/processor.h"

namespace hepfeed::emulated {
namespace {

struct Exchange {
  uint64_t given;
  unsigned source;  // a lane
  uint64_t taken;
};

struct Ballot {
  bool value;
  unsigned lanes;
};

void exchange(Thread* const* lanes, Place) {
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane] == nullptr) continue;
    Exchange& own = *static_cast<Exchange*>(lanes[lane]->payload);
    own.taken = static_cast<const Exchange*>(lanes[own.source]->payload)->given;
  }
}

void count_votes(Thread* const* lanes, Place) {
  unsigned votes = 0;
  for (unsigned lane = 0; lane < kLanes; ++lane)
    if (lanes[lane] != nullptr && static_cast<const Ballot*>(lanes[lane]->payload)->value)
      votes |= 1u << lane;
  for (unsigned lane = 0; lane < kLanes; ++lane)
    if (lanes[lane] != nullptr) static_cast<Ballot*>(lanes[lane]->payload)->lanes = votes;
}

// The lane that `operand` names, as PTX defines shfl.sync; the own one where that lies outside of the
// segment.
int source_lane(Shuffle kind, int lane, int operand, int width) {
  const int first = lane & ~(width - 1), last = first + width - 1;
  int source = 0;
  switch (kind) {
    case Shuffle::kIndex:
      return first | (operand & (width - 1));
    case Shuffle::kUp:
      source = lane - operand;
      return source < first ? lane : source;
    case Shuffle::kDown:
      source = lane + operand;
      break;
    case Shuffle::kXor:
      source = lane ^ operand;
      break;
  }
  return source > last ? lane : source;
}

}  // namespace

void meet_warp(unsigned mask, Place place) { meet_lanes(mask, nullptr, nullptr, true, place); }

uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width, Place place) {
  Processor& processor = Processor::here();
  if (width < 1 || width > static_cast<int>(kLanes) || (width & (width - 1)) != 0)
    processor.fault("a shuffle's width is a power of two up to 32, not " + std::to_string(width), place);
  const int lane = static_cast<int>(processor.current().number % kLanes);
  const int source = source_lane(kind, lane, operand & 31, width);
  if ((mask >> source & 1u) == 0)
    processor.fault("a shuffle reads lane " + std::to_string(source) + ", which its mask doesn't name",
                    place);
  Exchange payload{value, static_cast<unsigned>(source), 0};
  meet_lanes(mask, &exchange, &payload, false, place);
  return payload.taken;
}

unsigned ballot(unsigned mask, bool value, Place place) {
  Ballot payload{value, 0};
  meet_lanes(mask, &count_votes, &payload, false, place);
  return payload.lanes;
}

}  // namespace hepfeed::emulated
