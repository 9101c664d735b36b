// CUDA's types and markers, and the indices of the running thread.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// __thread and not thread_local, and of the initial-exec model: no call stands between a kernel and its
// index.
#define HEPFEED_INDEX extern __thread __attribute__((tls_model("initial-exec")))
HEPFEED_INDEX uint3 threadIdx;
HEPFEED_INDEX uint3 blockIdx;
HEPFEED_INDEX dim3 blockDim;
HEPFEED_INDEX dim3 gridDim;
#undef HEPFEED_INDEX
