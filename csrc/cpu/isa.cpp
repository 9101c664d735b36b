#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace hepfeed {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

Isa best_of_processor() {
#if HEPFEED_X86
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("f16c")) return Isa::baseline;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return Isa::avx512;
  return Isa::avx2;
#else
  return Isa::baseline;
#endif
}

Isa checked(const std::string& name) {
  for (int level = 0; level < 3; ++level) {
    if (name != kNames[level]) continue;
    if (level > static_cast<int>(best_of_processor()))
      throw std::invalid_argument("this processor has no " + name + "; HEPFEED_ISA may be 'baseline'" +
                                  (best_of_processor() == Isa::avx2 ? " or 'avx2'" : ""));
    return static_cast<Isa>(level);
  }
  throw std::invalid_argument("instruction set '" + name + "' is none of 'baseline', 'avx2', 'avx512'");
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

std::string isa_name() { return kNames[static_cast<int>(isa())]; }

}  // namespace hepfeed
