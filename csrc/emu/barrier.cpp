#include "emu/barrier.h"

#include "emu/fault.h"
#include "emu/processor.h"
#include "emu/sanitizers.h"

namespace hepfeed::emulated {
namespace {

int counted(Vote vote, unsigned votes, size_t threads) {
  switch (vote) {
    case Vote::kNone:
      return 0;
    case Vote::kOr:
      return votes != 0;
    case Vote::kAnd:
      return votes == threads;
    case Vote::kCount:
      return static_cast<int>(votes);
  }
  return 0;
}

}  // namespace

int meet_block(Vote vote, bool value, Place place) {
  Processor& processor = Processor::here();
  Block& block = processor.block();
  Barrier& barrier = block.barrier;
  Thread& self = processor.current();
  self.place = place;
  self.vote = vote;
  self.state = State::kAtBarrier;
  for (const Thread& other : block.threads) {
    if (block.ended == 0 && (barrier.waiting == 0 || (barrier.place == place && barrier.vote == vote))) break;
    if (other.state == State::kEnded ||
        (other.state == State::kAtBarrier && (other.place != place || other.vote != vote)))
      throw Fault("divergent barrier: " + block.describe(self) + ", " + block.describe(other));
  }
  barrier.place = place;
  barrier.vote = vote;
  barrier.votes += value;
  void* const token = &barrier.tokens[barrier.meetings & 1u];
  release(token);
  if (++barrier.waiting == block.threads.size()) {
    barrier.result = counted(vote, barrier.votes, block.threads.size());
    barrier.waiting = barrier.votes = 0;
    ++barrier.meetings;
    self.state = State::kReady;
    for (Thread& other : block.threads)
      if (&other != &self) processor.resume(other);
    if (processor.random() != nullptr) processor.give_way();
  } else {
    processor.wait();
  }
  acquire(token);
  return barrier.result;
}

}  // namespace hepfeed::emulated
