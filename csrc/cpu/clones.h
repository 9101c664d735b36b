// One body of code, compiled for every instruction set; which one runs is picked at run time.
//
// Loops of such a body work item by item and are compiled without contraction to fused multiply-add, so that
// their results are the same bits for every instruction set.
#pragma once

#include "cpu/isa.h"

#define HEPFEED_INLINE __attribute__((always_inline))

namespace hepfeed {

#if HEPFEED_X86
template <class Body>
HEPFEED_TARGET_AVX2 void run_avx2(const Body& body) {
  body();
}

template <class Body>
HEPFEED_TARGET_AVX512 void run_avx512(const Body& body) {
  body();
}
#endif

// Calls `body`, a lambda marked HEPFEED_INLINE that calls nothing but functions marked so.
template <class Body>
void for_isa(const Body& body) {
#if HEPFEED_X86
  if (isa() >= Isa::avx512) return run_avx512(body);
  if (isa() == Isa::avx2) return run_avx2(body);
#endif
  body();
}

}  // namespace hepfeed
