// Starts kernels.  Launchers (cuda/*.cu) call launch() and contain no <<<>>>, so that they compile for the
// emulator too.  Files that no CUDA compiler sees may include this for Stream.
#pragma once

#include <cstddef>

namespace hepfeed::device {

using Stream = void*;  // a cudaStream_t; null is the default stream, and the only one of the emulator

constexpr size_t kMaxDynamicShared =
    96 * 1024;  // bytes a block, that every card of compute capability 8.0 has
constexpr unsigned kMaxBlockThreads = 1024;
constexpr unsigned kMaxGridX = 0x7fffffffu;
constexpr unsigned kMaxGridYZ = 65535;

}  // namespace hepfeed::device

#if defined(HEPFEED_EMULATED)
#include "emu/launch_emulated.h"
#elif defined(__CUDACC__)
#include "cuda/launch_cuda.h"
#endif
