// Stacks that one host thread changes between.
#pragma once

#include <cstddef>

namespace hepfeed::emulated {

class Fibre {
 public:
  // The host thread itself, on the stack that it has.
  Fibre();
  // Runs `entry` at the first switch to it, which must never return.
  explicit Fibre(void (*entry)());
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // Goes on with `to` where that left off; returns when something switches back to this fibre, the running
  // one.
  void switch_to(Fibre& to);

 private:
  static void start();
  void left(Fibre* previous);

  void (*entry_)() = nullptr;
  char* memory_ = nullptr;        // the stack with its guard page; null for the host
  void* context_ = nullptr;       // the stack pointer, or a ucontext_t
  const void* bottom_ = nullptr;  // for the sanitizers, as are the rest
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
  void* identity_ = nullptr;
};

}  // namespace hepfeed::emulated
