// Survives bus errors: what reading a mapped file gives where the file was cut short or its device failed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// What became of a piece of work.
enum class Fault : uint8_t {
  none = 0,
  unreadable = 1,  // a bus error: the memory behind a source (or the destination) failed
  outside = 2,     // a cell lies outside of its image
};

// Does piece `i` of what `context` describes.  Under a guard it may be left at any load by a jump: it must
// not hold anything that needs a destructor.
using Piece = Fault (*)(void* context, size_t i);

// Installs the handler of SIGBUS, the first time that it is called.  Bus errors outside of guarded work go
// on to the handler that was there before.  Whoever installs another handler later ends the guard.
// Throws std::system_error.
void guard_bus_errors();

bool bus_errors_guarded();

// faults[i] = piece(context, i) for i below `count`; if `guarded`, Fault::unreadable for a piece that met a
// bus error, and the next ones are done as if nothing had happened.
void run_pieces(Piece piece, void* context, size_t count, bool guarded, uint8_t* faults);

}  // namespace hepfeed
