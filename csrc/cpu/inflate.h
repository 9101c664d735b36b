// zlib streams inflated by whichever library is fastest, without Python's lock.
//
// The libraries are those that the Python packages `deflate` (libdeflate) and `zlib-ng` carry, and the zlib
// that HDF5 itself loads.  They are opened by path at run time and called through their C functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hepfeed {

// One library's decoder with its work space: for one thread at a time.
class Inflater {
 public:
  virtual ~Inflater() = default;
  // Inflates a whole zlib stream of exactly `out_bytes` bytes and verifies its Adler-32; false if the stream
  // is broken or has another length.
  virtual bool inflate(const uint8_t* in, size_t in_bytes, uint8_t* out, size_t out_bytes) = 0;
};

// The functions below may be called from any thread.

// Opens `library` ("libdeflate", "zlib-ng" or "zlib") in the shared object at `path`; false if the file can't
// be opened or does not export the functions.
bool register_inflater(const std::string& library, const std::string& path);

// Names of the registered libraries, in the order of registration.
std::vector<std::string> inflaters();

// A decoder for each registered library, in the same order.
std::vector<std::unique_ptr<Inflater>> make_inflaters();

}  // namespace hepfeed
