// Copies to memory that is read by someone else, later: past the cache, so that its lines need not be fetched
// first.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// memcpy; copies of a few kilobytes and more go past the cache where the processor can do that.  The bytes
// are visible to other threads and processes once it returns.
void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes);

// stream_copy from memory that is in no cache, while the beginning of `next`, which is copied after it, is
// fetched.  That may be null and need not be readable: a fetch never fails.
void stream_copy_far(uint8_t* to, const uint8_t* from, size_t bytes, const uint8_t* next, size_t next_bytes);

}  // namespace hepfeed
