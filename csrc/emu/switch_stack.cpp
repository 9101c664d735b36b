#include "emu/switch_stack.h"

#include <cstdint>

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(HEPFEED_FIBRES_BY_UCONTEXT)

// A context is its stack pointer; the registers that a call preserves lie above it.
extern "C" void hepfeed_switch_stack(void** from, void* to);

#if defined(__x86_64__)
constexpr int kSaved = 6;  // words below the address to return to
constexpr int kReturn = 6;
constexpr int kWords = 8;  // so that the stack is aligned as after a call
asm(R"(
.text
.hidden hepfeed_switch_stack
.globl hepfeed_switch_stack
.type hepfeed_switch_stack, @function
hepfeed_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hepfeed_switch_stack, . - hepfeed_switch_stack
)");
#else
constexpr int kReturn = 11;  // x30
constexpr int kWords = 20;
asm(R"(
.text
.hidden hepfeed_switch_stack
.globl hepfeed_switch_stack
.type hepfeed_switch_stack, %function
hepfeed_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size hepfeed_switch_stack, . - hepfeed_switch_stack
)");
#endif

namespace hepfeed::emulated {

void* new_context(char* stack, size_t bytes, void (*entry)()) {
  if (stack == nullptr) return nullptr;  // it is saved when left
  const uintptr_t top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15};
  void** const words = reinterpret_cast<void**>(top) - kWords;
  for (int word = 0; word < kWords; ++word) words[word] = nullptr;
  words[kReturn] = reinterpret_cast<void*>(entry);
  return words;
}

void delete_context(void*) {}

void switch_context(void*& from, void* to) { hepfeed_switch_stack(&from, to); }

}  // namespace hepfeed::emulated

#else

#include <ucontext.h>

namespace hepfeed::emulated {

void* new_context(char* stack, size_t bytes, void (*entry)()) {
  ucontext_t* const context = new ucontext_t();
  if (stack != nullptr) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = bytes;
    makecontext(context, entry, 0);
  }
  return context;
}

void delete_context(void* context) { delete static_cast<ucontext_t*>(context); }

void switch_context(void*& from, void* to) {
  swapcontext(static_cast<ucontext_t*>(from), static_cast<ucontext_t*>(to));
}

}  // namespace hepfeed::emulated

#endif
