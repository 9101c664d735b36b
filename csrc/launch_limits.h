// What every card since compute capability 8.0 can launch.
#pragma once

#include <stdexcept>
#include <string>

#include "launch.h"
#include "port.h"

namespace hepfeed::device {

// Returns whether the grid has a block at all; throws std::runtime_error where a limit is passed.
inline bool check_launch(dim3 grid, dim3 block, size_t dynamic_shared) {
  const auto shape = [](dim3 size) {
    return "(" + std::to_string(size.x) + ", " + std::to_string(size.y) + ", " + std::to_string(size.z) + ")";
  };
  const unsigned long long threads = 1ull * block.x * block.y * block.z;
  if (threads == 0 || threads > kMaxBlockThreads || block.z > 64)
    throw std::runtime_error("a block has 1 to 1024 threads, 64 of them along z at most; not " +
                             shape(block));
  if (grid.x > kMaxGridX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ)
    throw std::runtime_error(
        "a grid has less than 2^31 blocks along x and 65535 along y and z at most; not " + shape(grid));
  if (dynamic_shared > kMaxDynamicShared)
    throw std::runtime_error("a block has " + std::to_string(kMaxDynamicShared) +
                             " bytes of dynamic shared memory at most, not " +
                             std::to_string(dynamic_shared));
  return grid.x != 0 && grid.y != 0 && grid.z != 0;
}

}  // namespace hepfeed::device
