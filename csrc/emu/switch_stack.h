// The change of stacks itself: assembly where it is known, else ucontext (which makes a system call).
#pragma once

#include <cstddef>

namespace hepfeed::emulated {

// Returns a context that calls entry() on the stack at its first turn; null stands for the host's.
void* new_context(char* stack, size_t bytes, void (*entry)());
void delete_context(void* context);

// Saves the running context in `from` and goes on with `to`.
void switch_context(void*& from, void* to);

}  // namespace hepfeed::emulated
