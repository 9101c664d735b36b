#include "emu/processor.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "emu/fault.h"
#include "emu/sanitizers.h"

__thread uint3 threadIdx;
__thread uint3 blockIdx;
__thread dim3 blockDim;
__thread dim3 gridDim;

namespace hepfeed::emulated {
namespace {

// Unwinds a thread of a launch that has failed elsewhere.
struct Cancelled {};

constexpr size_t kNamedThreads = 4;  // in the message of a deadlock

}  // namespace

__thread Processor* Processor::own_ = nullptr;

Processor* Processor::make() {
  static thread_local Processor processor;
  return &processor;
}

void Processor::set_order(bool random_order, uint64_t seed) {
  random_order_ = random_order;
  random_.seed(seed);
}

void Processor::run(Block& block, void (*thread)(const void*), const void* data) {
  block_ = &block;
  thread_ = thread;
  data_ = data;
  cancelled_ = false;
  ready_.reset(block.threads.size());
  for (Thread& each : block.threads) ready_.add(each);
  running_ = &host_;
  release(&start_token_);
  if (kThreadSanitizer)  // made by the host, so that no thread of the block comes before another
    for (Thread& each : block.threads) fibre_of(each);
  for (;;) {
    switch_to(ready_.take(random()));  // returns when no thread can go on
    if (block.ended == block.threads.size()) break;
    current_ = nullptr;
    fail(std::make_exception_ptr(Fault(deadlock())));
  }
  block_ = nullptr;
  for (const Fibre* lost : std::exchange(abandoned_, {}))
    fibres_.erase(
        std::find_if(fibres_.begin(), fibres_.end(), [&](const auto& fibre) { return fibre.get() == lost; }));
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Processor::switch_to(Thread* thread) {
  Fibre& from = *running_;
  if (thread != nullptr) {
    running_ = &fibre_of(*thread);
    enter(*thread);
  } else {
    running_ = &host_;
  }
  if (running_ != &from) from.switch_to(*running_);
}

void Processor::settle() {
  acquire(&end_token_);
  if (!kThreadSanitizer) return;
  idle_.clear();
  for (const auto& fibre : fibres_) idle_.push_back(fibre.get());
}

Fibre& Processor::fibre_of(Thread& thread) {
  if (thread.fibre == nullptr) {
    if (idle_.empty()) {
      fibres_.push_back(std::make_unique<Fibre>(&Processor::work));
      thread.fibre = fibres_.back().get();
    } else {
      thread.fibre = idle_.back();
      idle_.pop_back();
    }
  }
  return *thread.fibre;
}

void Processor::enter(Thread& thread) {
  current_ = &thread;
  threadIdx = thread.index;
}

// The life of a fibre: threads from their beginning to their end, one after another while none has to wait.
void Processor::work() {
  Processor& self = here();
  for (;;) {
    Thread& thread = *self.current_;
    acquire(&self.start_token_);
    try {
      if (self.cancelled_) throw Cancelled();
      self.thread_(self.data_);
      self.end(thread);
    } catch (const Cancelled&) {
    } catch (...) {
      self.fail(std::current_exception());
    }
    release(&self.end_token_);
    thread.state = State::kEnded;
    ++self.block_->ended;
    Fibre* const fibre = std::exchange(thread.fibre, nullptr);
    Thread* const next = self.ready_.take(self.random());
    if (kThreadSanitizer) {
      self.switch_to(next);
    } else if (next != nullptr && next->fibre == nullptr) {
      next->fibre = fibre;
      self.enter(*next);
    } else {
      self.idle_.push_back(fibre);
      self.switch_to(next);
    }
  }
}

void Processor::end(Thread& thread) {
  if (const Copy* copy = thread.copies.first())
    fault("an asynchronous copy that is never waited for", copy->place);
  Warp& warp = block_->warp_of(thread);
  const unsigned lane = 1u << thread.number % kLanes;
  warp.present &= ~lane;
  thread.state = State::kEnded;
  if (block_->barrier.waiting == 0 && warp.waiting == 0) return;
  for (const Thread& other : block_->threads) {
    if (other.state == State::kAtBarrier)
      throw Fault("divergent barrier: " + block_->describe(other) + ", " + block_->describe(thread));
    if (other.state == State::kInWarp && &block_->warp_of(other) == &warp && (other.mask & lane) != 0)
      throw Fault("a mask names a lane that has ended: " + block_->describe(other) + ", " +
                  block_->describe(thread));
  }
}

void Processor::fail(std::exception_ptr failure) {
  if (failure_ == nullptr) failure_ = std::move(failure);
  cancelled_ = true;
  while (ready_.take(nullptr) != nullptr) {
  }
  for (Thread& thread : block_->threads) {
    if (thread.state == State::kEnded || &thread == current_) continue;
    if (thread.fibre != nullptr) {
      ready_.add(thread);
    } else {
      thread.state = State::kEnded;
      ++block_->ended;
    }
  }
}

void Processor::wait() {
  switch_to(ready_.take(random()));
  if (cancelled_) throw Cancelled();
}

void Processor::give_way() {
  ready_.add(*current_);
  wait();
}

void Processor::resume(Thread& thread) {
  thread.state = State::kReady;
  ready_.add(thread);
}

void Processor::fault(const std::string& what, Place place) const {
  throw Fault(describe_fault(what, place));
}

void Processor::abandon(const std::string& what, Place place) {
  fail(std::make_exception_ptr(Fault(describe_fault(what, place))));
  release(&end_token_);
  current_->state = State::kEnded;
  ++block_->ended;
  abandoned_.push_back(std::exchange(current_->fibre, nullptr));
  switch_to(ready_.take(random()));
  std::abort();  // nobody switches back
}

std::string Processor::describe_fault(const std::string& what, Place place) const {
  return what + ": " + block_->name(*current_) + " at " + place.file + ":" + std::to_string(place.line);
}

// Whether a lane waits for others that all wait too, but not as it does.
bool Processor::diverges_in_warp() const {
  return std::any_of(block_->threads.begin(), block_->threads.end(), [this](const Thread& thread) {
    return thread.state == State::kInWarp && (thread.mask & ~block_->warp_of(thread).waiting) == 0;
  });
}

std::string Processor::deadlock() const {
  std::string words = diverges_in_warp() ? "lanes of a warp do different things:" : "deadlock:";
  std::vector<const Thread*> named;  // the first that waits in each way
  size_t waiting = 0;
  for (const Thread& thread : block_->threads) {
    if (thread.state == State::kEnded) continue;
    ++waiting;
    const bool known = std::any_of(named.begin(), named.end(), [&](const Thread* other) {
      return other->state == thread.state && other->place == thread.place && other->mask == thread.mask;
    });
    if (known || named.size() == kNamedThreads) continue;
    words += (named.empty() ? " " : "; ") + block_->describe(thread);
    named.push_back(&thread);
  }
  if (waiting > named.size()) words += "; and " + std::to_string(waiting - named.size()) + " more";
  return words;
}

}  // namespace hepfeed::emulated
