// The meeting of lanes that all that a warp does together is made of.
#pragma once

#include "emu/place.h"
#include "emu/thread.h"

namespace hepfeed::emulated {

// Waits until all lanes of the mask wait for the same work at the same place; then the last of them does it.
// `payload` is what the work finds for this lane.  With `ordered`, what each lane did before comes before
// what any does after.
void meet_lanes(unsigned mask, WarpWork work, void* payload, bool ordered, Place place);

}  // namespace hepfeed::emulated
