// What the emulator tells AddressSanitizer and ThreadSanitizer; nothing in a build without them.
//
// The emulator itself is compiled without instrumentation even where kernels have it (with
// HEPFEED_ADDRESS_SANITIZER or HEPFEED_THREAD_SANITIZER defined instead), so that its own bookkeeping,
// which all threads of a block share, is not taken for theirs.
#pragma once

#include <cstddef>

#if defined(HEPFEED_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(HEPFEED_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif

namespace hepfeed::emulated {

#if defined(HEPFEED_THREAD_SANITIZER)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

// Forbids, or allows, the kernel to touch the bytes.
inline void forbid([[maybe_unused]] void* from, [[maybe_unused]] size_t bytes) {
#if defined(HEPFEED_ADDRESS_SANITIZER)
  __asan_poison_memory_region(from, bytes);
#endif
}

inline void allow([[maybe_unused]] void* from, [[maybe_unused]] size_t bytes) {
#if defined(HEPFEED_ADDRESS_SANITIZER)
  __asan_unpoison_memory_region(from, bytes);
#endif
}

// Whether all the bytes may be touched, as far as is known.
inline bool allowed([[maybe_unused]] const void* from, [[maybe_unused]] size_t bytes) {
#if defined(HEPFEED_ADDRESS_SANITIZER)
  return __asan_region_is_poisoned(const_cast<void*>(from), bytes) == nullptr;
#else
  return true;
#endif
}

// Counts as an access of the running thread.
inline void note_read([[maybe_unused]] const void* from, [[maybe_unused]] size_t bytes) {
#if defined(HEPFEED_THREAD_SANITIZER)
  __tsan_read_range(const_cast<void*>(from), bytes);
#endif
}

inline void note_write([[maybe_unused]] void* to, [[maybe_unused]] size_t bytes) {
#if defined(HEPFEED_THREAD_SANITIZER)
  __tsan_write_range(to, bytes);
#endif
}

// All that a thread did before release(token) comes before what a thread does after acquire(token).
inline void release([[maybe_unused]] void* token) {
#if defined(HEPFEED_THREAD_SANITIZER)
  __tsan_release(token);
#endif
}

inline void acquire([[maybe_unused]] void* token) {
#if defined(HEPFEED_THREAD_SANITIZER)
  __tsan_acquire(token);
#endif
}

}  // namespace hepfeed::emulated
