// One CUDA thread of the block that runs.
#pragma once

#include "emu/barrier.h"
#include "emu/copy_queue.h"
#include "emu/fibre.h"
#include "emu/place.h"
#include "emu/words.h"

namespace hepfeed::emulated {

enum class State { kReady, kAtBarrier, kInWarp, kEnded };

struct Thread;

// Does what lanes do together, once all have come; lanes[i] is null where lane i is not of the mask.
using WarpWork = void (*)(Thread* const* lanes, Place place);

struct Thread {
  uint3 index{};
  unsigned number = 0;  // in the block, x fastest
  State state = State::kReady;
  Fibre* fibre = nullptr;  // while it has begun and not ended
  CopyQueue copies;

  // Of the barrier or the work of a warp that it waits at.
  Place place;
  Vote vote = Vote::kNone;
  unsigned mask = 0;
  WarpWork work = nullptr;
  void* payload = nullptr;     // what it gives to the work and takes from it, on its own stack
  void* warp_token = nullptr;  // of the last meeting of its warp, for ThreadSanitizer
};

}  // namespace hepfeed::emulated
