// The threads that can go on, and which of them does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "emu/thread.h"

namespace hepfeed::emulated {

// A generator of random numbers: xorshift64*, Vigna 2016.
class Random {
 public:
  void seed(uint64_t seed) { state_ = seed * 0x9e3779b97f4a7c15u | 1u; }
  // Returns one of 0 .. count - 1.
  size_t below(size_t count) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<size_t>((state_ * 0x2545f4914f6cdd1du >> 32) * count >> 32);
  }

 private:
  uint64_t state_ = 1;
};

// A ring that holds each thread of a block once at most.
class ReadyList {
 public:
  void reset(size_t threads) {
    ring_.assign(threads, nullptr);
    first_ = count_ = 0;
  }

  void add(Thread& thread) {
    ring_[at(count_)] = &thread;
    ++count_;
  }

  // Returns the first, or any of them where `random` is given; null of an empty list.
  Thread* take(Random* random) {
    if (count_ == 0) return nullptr;
    if (random != nullptr) std::swap(ring_[first_], ring_[at(random->below(count_))]);
    Thread* const thread = ring_[first_];
    first_ = at(1);
    --count_;
    return thread;
  }

 private:
  size_t at(size_t place) const {
    const size_t sum = first_ + place;
    return sum < ring_.size() ? sum : sum - ring_.size();
  }

  std::vector<Thread*> ring_;
  size_t first_ = 0, count_ = 0;
};

}  // namespace hepfeed::emulated
