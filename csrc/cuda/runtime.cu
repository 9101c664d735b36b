#include <cuda_runtime.h>

#include "cuda/runtime.h"

namespace hepfeed::device {

Devices devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return {count, ""};
  cudaGetLastError();  // so that no later call reports this one
  return {0, status == cudaSuccess ? "no CUDA device" : cudaGetErrorString(status)};
}

int runtime_version() {
  int version = 0;
  cudaRuntimeGetVersion(&version);
  return version;
}

}  // namespace hepfeed::device
