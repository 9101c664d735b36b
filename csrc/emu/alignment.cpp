// Accesses at addresses that aren't a multiple of their type's alignment: a fault of the hardware, which
// -fsanitize=alignment finds.  This is the function that it calls.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "emu/fault.h"
#include "emu/processor.h"

namespace {

// As GCC and Clang lay them out for the function below.
struct Type {
  uint16_t kind, info;
  char name[1];
};

struct Mismatch {
  const char* file;
  uint32_t line, column;
  const Type* type;
  unsigned char log_alignment, access;
};

}  // namespace

// The compiler takes for granted that it doesn't throw.
extern "C" __attribute__((visibility("hidden"), noreturn)) void __ubsan_handle_type_mismatch_v1_abort(
    void* found, void*) {
  using hepfeed::emulated::Processor;
  const Mismatch& mismatch = *static_cast<const Mismatch*>(found);
  const std::string what = std::string("an access to ") + mismatch.type->name +
                           " at an address that isn't aligned to " +
                           std::to_string(1u << mismatch.log_alignment) + " bytes";
  Processor& processor = Processor::here();
  if (processor.runs()) processor.abandon(what, {mismatch.file, static_cast<int>(mismatch.line)});
  std::fprintf(stderr, "%s:%u: %s\n", mismatch.file, mismatch.line, what.c_str());
  std::abort();
}
