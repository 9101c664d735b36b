#include "cpu/isa.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <stdexcept>

#if HEPFEED_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hepfeed {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"};

// The first `count` names, quoted.
std::string listed(size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += std::string(i ? ", '" : "'") + kNames[i] + "'";
  return text;
}

#if HEPFEED_X86
// Bits of CPUID's leaf 7: Intel's manual of the architecture, volume 2, "CPUID".
bool has_avx512_bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 5 & 1);
}

bool has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const unsigned tile_and_bf16 = 1u << 24 | 1u << 22;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & tile_and_bf16) != tile_and_bf16)
    return false;
  // The system keeps the states of the tiles and of their configuration: bits 18 and 17 of XCR0.
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low >> 17 & 3) == 3;
}

// Linux gives the state of the tiles, of 8 KiB a thread, only to processes that ask for it, and not where a
// thread has a signal stack that is too small for it (Documentation/arch/x86/xstate.rst).
bool ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Isa best_of_processor() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("f16c")) return Isa::baseline;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return Isa::avx2;
  if (!has_avx512_bf16()) return Isa::avx512;
  return has_amx() ? Isa::amx : Isa::avx512_bf16;
}
#else
bool ask_for_tiles() { return false; }

Isa best_of_processor() { return Isa::baseline; }
#endif

bool tiles_granted() {
  static const bool granted = ask_for_tiles();
  return granted;
}

Isa checked(const std::string& name) {
  const auto best = static_cast<size_t>(best_of_processor());
  for (size_t level = 0; level < std::size(kNames); ++level) {
    if (name != kNames[level]) continue;
    if (level > best)
      throw std::invalid_argument("this processor has no " + name + "; HEPFEED_ISA may be one of " +
                                  listed(best + 1));
    if (static_cast<Isa>(level) == Isa::amx && !tiles_granted())
      throw std::invalid_argument("the system refuses the state of amx; HEPFEED_ISA may be one of " +
                                  listed(level));
    return static_cast<Isa>(level);
  }
  throw std::invalid_argument("instruction set '" + name + "' is none of " + listed(std::size(kNames)));
}

Isa initial() {
  const char* wanted = std::getenv("HEPFEED_ISA");
  return wanted && *wanted ? checked(wanted) : best_of_processor();
}

// Atomic, as set_isa() may be called while kernels run in other threads.
std::atomic<Isa>& current() {
  static std::atomic<Isa> value{initial()};
  return value;
}

}  // namespace

Isa isa() { return current().load(std::memory_order_relaxed); }

void set_isa(const std::string& name) { current().store(checked(name), std::memory_order_relaxed); }

std::string isa_name() { return kNames[static_cast<size_t>(isa())]; }

bool has_tiles() { return isa() >= Isa::amx && tiles_granted(); }

}  // namespace hepfeed
