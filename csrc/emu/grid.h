// Runs the threads of a grid.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emu/words.h"

namespace hepfeed::emulated {

// Calls thread(data) once for each thread of the grid, on fibres of the calling thread; several host threads
// may do so at once.  Blocks run one after another.
void run_grid(dim3 grid, dim3 block, size_t dynamic_shared, void (*thread)(const void*), const void* data);

// With 0, blocks and threads run in rising order, and one changes for the next only where it must wait.  Any
// other seed gives a random order of both, and one changes for another at atomic functions too.  A seed
// makes the same orders again for the same launches after it.
void set_seed(uint64_t seed);

}  // namespace hepfeed::emulated
