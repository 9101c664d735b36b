// The CUDA runtime: which devices there are.
#pragma once

#include <string>

namespace hepfeed::device {

struct Devices {
  int count;            // 0 where there is no driver, or no device
  std::string trouble;  // why, in the words of the runtime; empty where there are devices
};

Devices devices();

// As the runtime counts them, e.g. 13000 for 13.0.
int runtime_version();

}  // namespace hepfeed::device
