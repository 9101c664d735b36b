#include "emu/atomics.h"

#include "emu/processor.h"

namespace hepfeed::emulated {

void before_atomic(const void* address, unsigned bytes, Place place) {
  Processor& processor = Processor::here();
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
    processor.fault(
        "an atomic function of an address that isn't aligned to its " + std::to_string(bytes) + " bytes",
        place);
  if (processor.random() != nullptr && processor.random()->below(4) == 0) processor.give_way();
}

}  // namespace hepfeed::emulated
