#include "emu/shared_memory.h"

#include "emu/processor.h"

namespace hepfeed::emulated {

void* shared_array(const void* key, const char* name, size_t bytes, Place place) {
  return Processor::here().block().shared.array(key, name, bytes, place);
}

void* dynamic_shared() { return Processor::here().block().shared.dynamic(); }

}  // namespace hepfeed::emulated
