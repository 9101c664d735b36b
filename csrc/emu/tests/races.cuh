// Kernels whose threads get in each other's way, for the sanitizers; each has a twin that does not.
#pragma once

#include "port.h"

namespace hepfeed::device::kernels {

enum class Order {
  kRight,
  kNoBarrier,
  kNoWarpBarrier,
  kNoAtomic,
  kSharedByBlocks,
  kReadsOutside,
  kWritesOutside
};

__global__ void race(Order order, int* values) {
  HEPFEED_SHARED(int, tile, [64]);
  HEPFEED_SHARED(int, lanes, [64]);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  tile[threadIdx.x] = values[i];
  if (order != Order::kNoBarrier) __syncthreads();
  lanes[threadIdx.x] = tile[63 - threadIdx.x];
  if (order != Order::kNoWarpBarrier) __syncwarp();
  values[i] = lanes[threadIdx.x ^ 1];
  if (order == Order::kNoAtomic && threadIdx.x < 64)
    values[128 + blockIdx.x] += 1;
  else
    atomicAdd(&values[128 + blockIdx.x], 1);
  if (order == Order::kSharedByBlocks && threadIdx.x == 0) values[130] = static_cast<int>(blockIdx.x);
  if (order == Order::kReadsOutside) values[i] = reinterpret_cast<volatile int*>(tile)[64 + threadIdx.x % 2];
  if (order == Order::kWritesOutside && i == 127) reinterpret_cast<volatile int*>(values)[131] = 0;
}

}  // namespace hepfeed::device::kernels
