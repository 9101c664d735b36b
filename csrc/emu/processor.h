// Runs the threads of one block after another on fibres of its host thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "emu/block.h"
#include "emu/fibre.h"
#include "emu/ready_list.h"

namespace hepfeed::emulated {

class Processor {
 public:
  // That of the calling host thread.
  static Processor& here() { return *(own_ != nullptr ? own_ : own_ = make()); }

  // Runs all threads of a block to their end; throws the first exception of one, when all have been unwound.
  void run(Block& block, void (*thread)(const void*), const void* data);

  // For ThreadSanitizer, all that has run comes before what runs from now on; and fibres, of which there each
  // thread has one of its own, are used again.
  void settle();

  // Of the running CUDA thread:
  Thread& current() { return *current_; }
  Block& block() { return *block_; }
  // Waits, in a state that was set before, until another thread calls resume() for it.
  void wait();
  // Lets any other thread go first.
  void give_way();
  // Throws Fault: what is wrong, which thread and where.
  [[noreturn]] void fault(const std::string& what, Place place) const;
  // The same without an exception: the thread is left as it stands, and never goes on.
  [[noreturn]] void abandon(const std::string& what, Place place);
  bool runs() const { return block_ != nullptr; }

  void resume(Thread& thread);

  // The source of random order, or null where threads run in rising order.
  Random* random() { return random_order_ ? &random_ : nullptr; }
  void set_order(bool random_order, uint64_t seed);

 private:
  static Processor* make();
  static void work();
  void end(Thread& thread);
  void fail(std::exception_ptr failure);
  void switch_to(Thread* thread);
  void enter(Thread& thread);
  Fibre& fibre_of(Thread& thread);
  std::string describe_fault(const std::string& what, Place place) const;
  bool diverges_in_warp() const;
  std::string deadlock() const;

  static __thread __attribute__((tls_model("initial-exec"))) Processor* own_;

  Block* block_ = nullptr;
  void (*thread_)(const void*) = nullptr;
  const void* data_ = nullptr;
  Thread* current_ = nullptr;
  Fibre* running_ = nullptr;
  Fibre host_;
  ReadyList ready_;
  Random random_;
  bool random_order_ = false;
  bool cancelled_ = false;
  char start_token_ = 0, end_token_ = 0;
  std::exception_ptr failure_;
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> idle_;
  std::vector<Fibre*> abandoned_;
};

}  // namespace hepfeed::emulated
