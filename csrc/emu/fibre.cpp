#include "emu/fibre.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "emu/sanitizers.h"
#include "emu/switch_stack.h"

namespace hepfeed::emulated {
namespace {

constexpr size_t kPage = 4096 * 16;  // the largest page of the machines that we know
constexpr size_t kStack = kPage * 4;
constexpr size_t kMemory = kPage + kStack;

// The fibre that has just been left, for the one that goes on.
thread_local Fibre* g_left = nullptr;
thread_local Fibre* g_running = nullptr;

char* new_memory() {
  if (kThreadSanitizer) {  // malloc tells it that what the memory was used for before has ended
    void* const memory = std::malloc(kMemory);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<char*>(memory);
  }
  void* const memory =
      mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kPage, PROT_NONE);  // below the stack: one that grows too large ends the process
  return static_cast<char*>(memory);
}

void delete_memory(char* memory) {
  if (kThreadSanitizer) {
    std::free(memory);
  } else {
    allow(memory + kPage, kStack);
    munmap(memory, kMemory);
  }
}

}  // namespace

Fibre::Fibre() : context_(new_context(nullptr, 0, nullptr)) {}

Fibre::Fibre(void (*entry)())
    : entry_(entry), memory_(new_memory()), bottom_(memory_ + kPage), bytes_(kStack) {
  context_ = new_context(memory_ + kPage, kStack, &Fibre::start);
#if defined(HEPFEED_THREAD_SANITIZER)
  identity_ = __tsan_create_fiber(0);
#endif
}

Fibre::~Fibre() {
#if defined(HEPFEED_THREAD_SANITIZER)
  if (memory_ != nullptr) __tsan_destroy_fiber(identity_);
#endif
  delete_context(context_);
  if (memory_ != nullptr) delete_memory(memory_);
}

void Fibre::switch_to(Fibre& to) {
  g_left = this;
  g_running = &to;
#if defined(HEPFEED_THREAD_SANITIZER)
  if (memory_ == nullptr) identity_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.identity_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(HEPFEED_ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(&fake_stack_, to.bottom_, to.bytes_);
#endif
  switch_context(context_, to.context_);
  left(g_left);
}

void Fibre::left([[maybe_unused]] Fibre* previous) {
#if defined(HEPFEED_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(fake_stack_, &previous->bottom_, &previous->bytes_);
#endif
}

void Fibre::start() {
  g_running->left(g_left);
  g_running->entry_();
  std::abort();  // an entry never returns
}

}  // namespace hepfeed::emulated
