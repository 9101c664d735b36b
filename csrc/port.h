// What a kernel may use: CUDA C++ when nvcc compiles, its emulation on the CPU where HEPFEED_EMULATED is
// defined.  Kernels (kernels/*.cuh) include this file and no other header of CUDA.
//
// CUDA's own words, as in the CUDA C++ programming guide:
//   __global__ __device__ __host__ __forceinline__ __launch_bounds__ __align__ __restrict__ dim3
//   threadIdx blockIdx blockDim gridDim
//   __syncthreads __syncthreads_or __syncthreads_and __syncthreads_count __syncwarp
//   __shfl_sync __shfl_xor_sync __shfl_up_sync __shfl_down_sync __ballot_sync __any_sync __all_sync
//   atomicAdd atomicMin atomicMax atomicCAS atomicExch atomicOr
//   int2 int4 uint2 uint4 float2 float4 double2 and make_*; min max; fma fmaf rsqrtf and <cmath>
//   __popc __popcll __ffs __ffsll __clz __clzll __brev __brevll __umulhi __umul64hi __ldg
//   __float_as_uint __uint_as_float __float_as_int __int_as_float __double_as_longlong __longlong_as_double
//   __fadd_rn __fsub_rn __fmul_rn __fdiv_rn __fmaf_rn __fsqrt_rn __dadd_rn __dsub_rn __dmul_rn __ddiv_rn
//   __dsqrt_rn: rounded one by one, never contracted, hence the same bits on every machine
// All threads of a block meet at the same barrier, none having ended; a mask names lanes that are there.
//
// Of this project, in hepfeed::device:
//   HEPFEED_SHARED(type, name, [rows][columns])    a static array of shared memory, aligned to 16 bytes; no
//                                                  dimensions for one number
//   HEPFEED_DYNAMIC_SHARED(type, name)             type* name: the bytes given at the launch, likewise
//   aligned Half, BFloat16                                 numbers of 16 bits (float16.h) float to_float(x),
//   T from_float<T>(float), double to_double(x), T from_double<T>(double)
//       for float, double, Half and BFloat16; round to the nearest, ties to even; a NaN stays one
//   mma_16x8x16(d, a, b, Half{} or BFloat16{})     d += a b, as mma.sync.m16n8k16.row.col of the PTX ISA
//   mma_16x8x8_tf32(d, a, b), to_tf32(float)       as mma.sync.m16n8k8.row.col.tf32 and cvt.rna.tf32.f32
//   load_matrix_x4, load_matrix_x2 and ..._transposed   as ldmatrix.sync.aligned.m8n8[.trans].b16
//   copy_async_16, copy_async_commit, copy_async_wait<n>   as cp.async.cg.shared.global of 16 bytes
// The five of the tensor cores are for all 32 lanes of a warp together; fragments have PTX's layout.
#pragma once

#if defined(HEPFEED_EMULATED)
#include "emu/port_emulated.h"
#else
#include "cuda/port_cuda.h"
#endif
