// Arrays of shared memory.
#pragma once

#include <cstddef>

#include "emu/place.h"

namespace hepfeed::emulated {

// Returns the block's array that `key` stands for; the first thread to ask makes it, full of 0xFF.
void* shared_array(const void* key, const char* name, size_t bytes, Place place);

// Returns the bytes that the launch gave, full of 0xFF at first.
void* dynamic_shared();

}  // namespace hepfeed::emulated

#define HEPFEED_SHARED(type, name, dims)                                                          \
  using name##_shared_type = type dims;                                                           \
  static constexpr char name##_shared_key = 0;                                                    \
  name##_shared_type& name = *static_cast<name##_shared_type*>(::hepfeed::emulated::shared_array( \
      &name##_shared_key, #name, sizeof(name##_shared_type), ::hepfeed::emulated::Place::here()))

#define HEPFEED_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::hepfeed::emulated::dynamic_shared())
