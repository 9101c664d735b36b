// The words of port.h for a C++ compiler: kernels run on the CPU, one fibre a CUDA thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emu/arithmetic.h"
#include "emu/async_copy.h"
#include "emu/atomics.h"
#include "emu/barrier.h"
#include "emu/bits.h"
#include "emu/conversions.h"
#include "emu/shared_memory.h"
#include "emu/tensor_core.h"
#include "emu/vectors.h"
#include "emu/warp.h"
#include "emu/words.h"
