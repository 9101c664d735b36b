// CUDA's atomic functions: relaxed, as there.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emu/bits.h"
#include "emu/place.h"

namespace hepfeed::emulated {

// Before each atomic function: where the order of threads is random, another thread may run first.
void before_atomic(const void* address, unsigned bytes, Place place);

// Replaces *address by change(*address); returns what it was.
template <class T, class Change>
T change_atomically(T* address, const Change& change, Place place) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  before_atomic(address, sizeof(T), place);
  Bits* const word = reinterpret_cast<Bits*>(address);
  Bits old = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &old, same_bits<Bits>(change(same_bits<T>(old))), false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return same_bits<T>(old);
}

}  // namespace hepfeed::emulated

#define HEPFEED_ATOMIC(name, type, result)                                              \
  inline type name(type* address, type value,                                           \
                   hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) { \
    return hepfeed::emulated::change_atomically(                                        \
        address, [value](type old) -> type { return result; }, place);                  \
  }

#define HEPFEED_ATOMICS_OF_INTEGERS(type)                                                               \
  HEPFEED_ATOMIC(atomicMin, type, old < value ? old : value)                                            \
  HEPFEED_ATOMIC(atomicMax, type, old < value ? value : old)                                            \
  HEPFEED_ATOMIC(atomicExch, type, (static_cast<void>(old), value))                                     \
  HEPFEED_ATOMIC(atomicOr, type, old | value)                                                           \
  inline type atomicCAS(type* address, type expected, type value,                                       \
                        hepfeed::emulated::Place place = hepfeed::emulated::Place::here()) {            \
    return hepfeed::emulated::change_atomically(                                                        \
        address, [expected, value](type old) -> type { return old == expected ? value : old; }, place); \
  }

HEPFEED_ATOMICS_OF_INTEGERS(int)
HEPFEED_ATOMICS_OF_INTEGERS(unsigned)
HEPFEED_ATOMICS_OF_INTEGERS(unsigned long long)
HEPFEED_ATOMIC(atomicAdd, int, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
HEPFEED_ATOMIC(atomicAdd, unsigned, old + value)
HEPFEED_ATOMIC(atomicAdd, unsigned long long, old + value)
HEPFEED_ATOMIC(atomicAdd, float, old + value)
HEPFEED_ATOMIC(atomicAdd, double, old + value)
HEPFEED_ATOMIC(atomicExch, float, (static_cast<void>(old), value))

#undef HEPFEED_ATOMICS_OF_INTEGERS
#undef HEPFEED_ATOMIC
