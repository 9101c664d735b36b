// Python bindings of the kernels for CUDA devices: pybind11 only, never parsed by nvcc.
//
// Arrays come as addresses, and nothing is checked but what a launch needs: hepfeed/device checks shapes and
// dtypes, and allocates outputs and work space.  Work is queued on the stream; a launch that fails raises.
//
// With HEPFEED_EMULATED the same functions run on the processor, with addresses of the host.
#include "cuda/bindings.h"

#ifdef HEPFEED_EMULATED
#include "emu/bind_emulator.h"
#endif

#ifndef HEPFEED_CUDA_MODULE
#define HEPFEED_CUDA_MODULE _cuda
#endif

PYBIND11_MODULE(HEPFEED_CUDA_MODULE, module, pybind11::mod_gil_not_used()) {
  using namespace hepfeed::device;
  module.doc() = "Native kernels for CUDA devices; arrays are given by their addresses.";
  bind_runtime(module);
  bind_sites(module);
  bind_convolution(module);
  bind_weight_gradient(module);
  bind_rows(module);
  bind_images(module);
#ifdef HEPFEED_EMULATED
  bind_emulator(module);
#endif
}
