// What a kernel does that it must not.
#pragma once

#include <stdexcept>

namespace hepfeed::emulated {

// Names what is wrong, the thread and the place in its source.  Ends the launch, with all its threads.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace hepfeed::emulated
