// Instruction set of the kernels, picked once at run time.
#pragma once

#include <string>

namespace hepfeed {

// Every set has all those before it.
enum class Isa { baseline = 0, avx2 = 1, avx512 = 2, avx512_bf16 = 3, amx = 4 };

// The best set that this processor has and that HEPFEED_ISA or set_isa() does not forbid.
Isa isa();

// Restricts the kernels to `name` ("baseline", "avx2", "avx512", "avx512_bf16", "amx"), those that run in
// other threads from some block of their work on; throws std::invalid_argument where the processor lacks it,
// or the system refuses its state.
void set_isa(const std::string& name);

std::string isa_name();

// True where kernels may use the tiles of AMX: isa() has them, and the system lets this process keep their
// state, for which it is asked at the first call.  Processes that never call it keep small signal frames.
bool has_tiles();

}  // namespace hepfeed

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HEPFEED_X86 1
#define HEPFEED_TARGET_AVX2 __attribute__((target("avx2,f16c,fma")))
#define HEPFEED_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c,fma")))
#define HEPFEED_TARGET_AVX512_BF16 \
  __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c,fma")))
#define HEPFEED_TARGET_AMX \
  __attribute__((target("amx-tile,amx-bf16,avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c,fma")))
#else
#define HEPFEED_X86 0
#endif
