// Reads of many runs of bytes, of which a device works on all at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

constexpr int32_t kEndOfFile = -1;

// Runs of bytes: run i is bytes[i] bytes of file descriptors[i] from offsets[i] on, wanted at
// destinations[i].
struct FileRuns {
  const int32_t* descriptors;
  const int64_t* offsets;
  const int64_t* bytes;
  uint8_t* const* destinations;
  size_t count;
};

// Reads every run.  results[i] is 0, or the errno of run i, or kEndOfFile where the file ends before the run
// does.  What the page cache has is taken first; then the kernel is told of all that it lacks, so that a
// device is given the whole of it, before the first wait.  Neighbours that follow one another in a file are
// one read.  Throws std::bad_alloc.
void read_runs(const FileRuns& runs, int32_t* results);

}  // namespace hepfeed
