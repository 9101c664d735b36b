// The block that runs: its threads, its shared memory, and who waits at the barrier.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "emu/shared_arena.h"
#include "emu/thread.h"
#include "emu/words.h"

namespace hepfeed::emulated {

constexpr unsigned kLanes = 32;

struct Warp {
  unsigned present = 0;  // lanes that have not ended
  unsigned waiting = 0;  // lanes that wait for others
  unsigned meetings = 0;
  char lane_tokens[kLanes] = {};
  char meeting_tokens[64] = {};
};

struct Barrier {
  unsigned waiting = 0;
  Place place;
  Vote vote = Vote::kNone;
  unsigned votes = 0;  // threads that said yes
  int result = 0;      // of the last meeting: stays until all have come to the next
  unsigned meetings = 0;
  char tokens[2] = {};
};

struct Block {
  Block(dim3 shape, uint3 index, size_t dynamic_bytes);

  Warp& warp_of(const Thread& thread) { return warps[thread.number / kLanes]; }
  std::string name(const Thread& thread) const;
  // Names the thread, and the place where it waits.
  std::string describe(const Thread& thread) const;

  uint3 index;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned ended = 0;
  Barrier barrier;
  SharedArena shared;
};

}  // namespace hepfeed::emulated
