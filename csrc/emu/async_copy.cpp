#include "emu/async_copy.h"

#include <cstdint>

#include "emu/processor.h"
#include "emu/sanitizers.h"

namespace hepfeed::emulated {
namespace {

bool aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % kCopyBytes == 0; }

}  // namespace

void start_copy(void* shared, const void* global, bool valid, Place place) {
  Processor& processor = Processor::here();
  if (!processor.block().shared.holds(shared, kCopyBytes))
    processor.fault("an asynchronous copy to what isn't 16 bytes of one shared array", place);
  if (!aligned(shared))
    processor.fault("an asynchronous copy to an address that isn't aligned to 16 bytes", place);
  if (valid && !aligned(global))
    processor.fault("an asynchronous copy from an address that isn't aligned to 16 bytes", place);
  if (valid && !allowed(global, kCopyBytes))
    processor.fault("an asynchronous copy from outside of an array", place);
  const Copy copy{shared, valid ? global : nullptr, place};
  processor.current().copies.add(copy);
  if (processor.random() != nullptr && processor.random()->below(2) == 0) copy.run();
}

void close_group() { Processor::here().current().copies.close_group(); }

void finish_groups(int but_last, Place) { Processor::here().current().copies.finish(but_last); }

}  // namespace hepfeed::emulated
