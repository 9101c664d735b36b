// launch() by the CUDA runtime.
#pragma once

#include <cuda_runtime.h>
#include <cxxabi.h>

#include <array>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "launch_limits.h"

namespace hepfeed::device {

// Returns the name of a kernel as its source has it, with the arguments of a template.
inline std::string kernel_name(const void* kernel) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || mangled == nullptr) return "a kernel";
  int status = 0;
  char* plain = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  const std::string name = plain ? plain : mangled;
  std::free(plain);
  return name;
}

// Throws std::runtime_error with the kernel's name where a call of the runtime failed.
inline void check_cuda(cudaError_t error, const void* kernel) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that the next launch isn't blamed
  throw std::runtime_error("the launch of " + kernel_name(kernel) + " failed: " + cudaGetErrorName(error) +
                           ", " + cudaGetErrorString(error));
}

// Runs kernel(arguments...) in grid x block threads on a stream of the current device; does not wait.  The
// arguments are converted to the kernel's parameters.  An empty grid is no launch.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_shared, Stream stream,
            Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "a kernel takes other arguments");
  if (!check_launch(grid, block, dynamic_shared)) return;
  const void* const function = reinterpret_cast<const void*>(kernel);
  if (dynamic_shared > 0)  // or else static arrays and it have 48 kB together at most
    check_cuda(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(dynamic_shared)),
               function);
  std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  auto addresses = std::apply(
      [](auto&... value) { return std::array<void*, sizeof...(Parameters) + 1>{&value..., nullptr}; },
      values);
  check_cuda(cudaLaunchKernel(function, grid, block, addresses.data(), dynamic_shared,
                              static_cast<cudaStream_t>(stream)),
             function);
}

}  // namespace hepfeed::device
