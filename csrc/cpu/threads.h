// Work shared by the threads of the OpenMP runtime that the process has already.
//
// Nothing is linked: a second runtime beside torch's would be a second pool of threads that spin on the same
// cores.  Where no runtime is loaded, threads are started for the call.
#pragma once

#include <cstddef>

namespace hepfeed {

// Calls call(data, block) once for each block in 0 .. blocks - 1, from up to `threads` threads, blocks in
// rising order.  An exception ends the work and is thrown again, the first of them.  In a forked child of a
// process whose runtime has threads, `threads` must be 1.
void run_blocks(size_t blocks, int threads, void (*call)(const void* data, size_t block), const void* data);

// The same with a function object, body(block), that may be called from several threads at once.
template <class Body>
void for_blocks(size_t blocks, int threads, const Body& body) {
  run_blocks(
      blocks, threads, [](const void* data, size_t block) { (*static_cast<const Body*>(data))(block); },
      &body);
}

}  // namespace hepfeed
