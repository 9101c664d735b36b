// A kernel that does what a kernel must not, in one way after another.  Tests look for the places by the
// comments "fault: ...".
#pragma once

#include <stdexcept>

#include "port.h"

namespace hepfeed::device::kernels {

enum class Misdeed {
  kOtherBarrier,
  kEndedBeforeBarrier,
  kEndedBesideBarrier,
  kBarrierAndWarp,
  kNotInOwnMask,
  kNamesEndedLane,
  kEndedBesideWarp,
  kNamesMissingLane,
  kDifferentMasks,
  kDifferentWork,
  kReadsUnnamedLane,
  kOddWidth,
  kCopyToUnaligned,
  kCopyFromUnaligned,
  kCopyOutside,
  kCopyNotAwaited,
  kMatrixUnaligned,
  kMatrixOutside,
  kAtomicUnaligned,
  kVectorUnaligned,
  kManyStaticBytes,
  kWritesBehindArray,
  kThrows,
  kNone
};

__global__ void misbehave(Misdeed misdeed, const int4* global, float4* result) {
  HEPFEED_SHARED(int4, tile, [32]);
  const unsigned lane = threadIdx.x % 32;
  uint32_t registers[4];
  switch (misdeed) {
    case Misdeed::kOtherBarrier:
      if (threadIdx.x < 5) __syncthreads();
      __syncthreads();  // fault: kOtherBarrier
      break;
    case Misdeed::kEndedBeforeBarrier:
      if (threadIdx.x < 5) return;
      __syncthreads();  // fault: kEndedBeforeBarrier
      break;
    case Misdeed::kEndedBesideBarrier:
      if (threadIdx.x >= 5) return;
      __syncthreads();  // fault: kEndedBesideBarrier
      break;
    case Misdeed::kBarrierAndWarp:
      if (threadIdx.x < 5 || threadIdx.x >= 32) __syncthreads();
      __syncwarp();  // fault: kBarrierAndWarp
      break;
    case Misdeed::kNotInOwnMask:
      __syncwarp(0x7fffffffu);  // fault: kNotInOwnMask
      break;
    case Misdeed::kNamesEndedLane:
      if (lane == 3) return;
      __syncwarp();  // fault: kNamesEndedLane
      break;
    case Misdeed::kEndedBesideWarp:
      if (lane != 3) return;
      __syncwarp(0x88u);  // fault: kEndedBesideWarp
      break;
    case Misdeed::kNamesMissingLane:            // in a block of 33 threads
      if (threadIdx.x == 32) __syncwarp(0x3u);  // fault: kNamesMissingLane
      break;
    case Misdeed::kDifferentMasks:
      __syncwarp(lane < 16 ? 0xffffffffu : 0xffff0000u | 1u << 3);  // fault: kDifferentMasks
      break;
    case Misdeed::kDifferentWork:
      if (lane < 16)
        __syncwarp();
      else
        result->x = __shfl_sync(0xffffffffu, 1.0f, 0);  // fault: kDifferentWork
      break;
    case Misdeed::kReadsUnnamedLane:
      if (lane < 8) result->x = __shfl_sync(0xffu, 1.0f, 8);  // fault: kReadsUnnamedLane
      break;
    case Misdeed::kOddWidth:
      result->x = __shfl_sync(0xffffffffu, 1.0f, 0, 3);  // fault: kOddWidth
      break;
    case Misdeed::kCopyToUnaligned:
      copy_async_16(reinterpret_cast<int*>(tile) + 1, global, true);  // fault: kCopyToUnaligned
      break;
    case Misdeed::kCopyFromUnaligned:
      copy_async_16(tile, reinterpret_cast<const int*>(global) + 1, true);  // fault: kCopyFromUnaligned
      break;
    case Misdeed::kCopyOutside:
      copy_async_16(tile + 32, global, true);  // fault: kCopyOutside
      break;
    case Misdeed::kCopyNotAwaited:
      copy_async_16(&tile[lane], global, true);  // fault: kCopyNotAwaited
      copy_async_commit();
      copy_async_wait<1>();
      break;
    case Misdeed::kMatrixUnaligned:
      load_matrix_x4(registers, reinterpret_cast<int*>(tile) + 2);  // fault: kMatrixUnaligned
      break;
    case Misdeed::kMatrixOutside:
      load_matrix_x4(registers, &tile[lane + 1]);  // fault: kMatrixOutside
      break;
    case Misdeed::kAtomicUnaligned:
      atomicAdd(reinterpret_cast<int*>(reinterpret_cast<char*>(result) + 2), 1);  // fault: kAtomicUnaligned
      break;
    case Misdeed::kVectorUnaligned: {
      const int* const odd = reinterpret_cast<const int*>(global) + 1;
      *result = *reinterpret_cast<const float4*>(odd);  // fault: kVectorUnaligned
      break;
    }
    case Misdeed::kManyStaticBytes: {
      HEPFEED_SHARED(char, large, [48 * 1024]);  // fault: kManyStaticBytes
      large[0] = 0;
      break;
    }
    case Misdeed::kWritesBehindArray:
      reinterpret_cast<volatile int*>(tile)[4 * 32] = 0;
      break;
    case Misdeed::kThrows:
      __syncthreads();
      if (threadIdx.x == 7) throw std::domain_error("a kernel's own");
      __syncthreads();
      break;
    case Misdeed::kNone:
      __syncthreads();
      break;
  }
}

}  // namespace hepfeed::device::kernels
