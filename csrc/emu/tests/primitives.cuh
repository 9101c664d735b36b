// Kernels that do one thing each, so that tests see what the emulator makes of it.
#pragma once

#include "port.h"

namespace hepfeed::device::kernels {

// indices[i] = (threadIdx, blockIdx) of the i-th thread of the grid, x fastest, blocks apart.
__global__ void write_indices(int* indices) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int* const own = indices + 6 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
  own[0] = static_cast<int>(threadIdx.x);
  own[1] = static_cast<int>(threadIdx.y);
  own[2] = static_cast<int>(threadIdx.z);
  own[3] = static_cast<int>(blockIdx.x);
  own[4] = static_cast<int>(blockIdx.y);
  own[5] = static_cast<int>(blockIdx.z);
}

// order[i] = the number of the i-th thread to come, in each of two phases.
__global__ void record_order(int* count, int* order) {
  order[atomicAdd(&count[0], 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  __syncthreads();
  order[gridDim.x * blockDim.x + atomicAdd(&count[1], 1)] =
      static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

__global__ void reverse(int* values) {
  HEPFEED_SHARED(int, tile, [1024]);
  HEPFEED_SHARED(int, offset, );
  HEPFEED_DYNAMIC_SHARED(int, copies);
  if (threadIdx.x == 0) offset = 1;
  tile[threadIdx.x] = values[threadIdx.x];
  copies[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  const unsigned other = blockDim.x - 1 - threadIdx.x;
  values[threadIdx.x] = tile[other] + copies[other] + offset;
}

// What the arrays of a block hold before anything is written, and then spoilt for the next block.
__global__ void read_unset(int* found) {
  HEPFEED_SHARED(int, tile, [32]);
  HEPFEED_DYNAMIC_SHARED(int, bytes);
  const unsigned at = 2 * (blockIdx.x * 32 + threadIdx.x);
  found[at] = tile[threadIdx.x];
  found[at + 1] = bytes[threadIdx.x];
  tile[threadIdx.x] = bytes[threadIdx.x] = 1;
}

__global__ void vote_in_block(const int* values, int* results) {
  const int value = values[threadIdx.x];
  results[3 * threadIdx.x] = __syncthreads_or(value);
  results[3 * threadIdx.x + 1] = __syncthreads_and(value);
  results[3 * threadIdx.x + 2] = __syncthreads_count(value);
}

__global__ void vote_in_warp(unsigned mask, const int* values, unsigned* results) {
  if ((mask >> threadIdx.x & 1u) == 0) return;
  const int value = values[threadIdx.x];
  results[3 * threadIdx.x] = __ballot_sync(mask, value);
  results[3 * threadIdx.x + 1] = static_cast<unsigned>(__any_sync(mask, value));
  results[3 * threadIdx.x + 2] = static_cast<unsigned>(__all_sync(mask, value));
}

template <class T>
__global__ void shuffle_lanes(int kind, int operand, int width, const T* values, T* results) {
  const T value = values[threadIdx.x];
  T result = value;
  if (kind == 0) result = __shfl_sync(0xffffffffu, value, operand, width);
  if (kind == 1) result = __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(operand), width);
  if (kind == 2) result = __shfl_down_sync(0xffffffffu, value, static_cast<unsigned>(operand), width);
  if (kind == 3) result = __shfl_xor_sync(0xffffffffu, value, operand, width);
  results[threadIdx.x] = result;
}

// Both halves of a warp shuffle at once, each by itself.
__global__ void shuffle_halves(int* values) {
  const int value = values[threadIdx.x];
  if (threadIdx.x < 16)
    values[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, value, 15);
  else
    values[threadIdx.x] = __shfl_xor_sync(0xffff0000u, value, 1);
}

// Each lane writes for its neighbour, in turn.
__global__ void pass_round(int rounds, int* values) {
  HEPFEED_SHARED(int, tile, [32]);
  tile[threadIdx.x] = values[threadIdx.x];
  for (int round = 0; round < rounds; ++round) {
    __syncwarp();
    const int next = tile[(threadIdx.x + 1) % 32];
    __syncwarp();
    tile[threadIdx.x] = next;
  }
  values[threadIdx.x] = tile[threadIdx.x];
}

template <class T>
__global__ void change_integers(T* places) {
  const T value = static_cast<T>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&places[0], value);
  atomicMin(&places[1], value);
  atomicMax(&places[2], value);
  atomicOr(&places[3], static_cast<T>(T{1} << value % 31));
  if (atomicCAS(&places[4], T{0}, value + 1) == 0) atomicExch(&places[5], value);
  // An addition of its own: none is lost whatever comes between.
  T old = places[6], seen;
  while ((seen = atomicCAS(&places[6], old, old + value)) != old) old = seen;
}

template <class T>
__global__ void add_floats(T* sum) {
  atomicAdd(sum, static_cast<T>(threadIdx.x));
}

// late[i] = what lies in shared memory after a copy was started and `wait` of 0 (no wait), 1 (for all but the
// last of two groups) or 2 (for both).
__global__ void copy_late(int wait, int valid, const int4* from, int4* late) {
  HEPFEED_SHARED(int4, tile, [2][32]);
  copy_async_16(&tile[0][threadIdx.x], &from[threadIdx.x], static_cast<int>(threadIdx.x) < valid);
  copy_async_commit();
  copy_async_16(&tile[1][threadIdx.x], &from[32 + threadIdx.x], static_cast<int>(threadIdx.x) < valid);
  copy_async_commit();
  if (wait == 1) copy_async_wait<1>();
  if (wait == 2) copy_async_wait<0>();
  late[threadIdx.x] = tile[0][threadIdx.x];
  late[32 + threadIdx.x] = tile[1][threadIdx.x];
  copy_async_wait<0>();
}

// Fragments of lane l at a[4 l], b[2 l], d[4 l].
template <int kType>
__global__ void multiply_fragments(const uint32_t* a, const uint32_t* b, float* d) {
  const unsigned lane = threadIdx.x;
  const uint32_t own_a[4] = {a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]};
  const uint32_t own_b[2] = {b[2 * lane], b[2 * lane + 1]};
  float own_d[4] = {d[4 * lane], d[4 * lane + 1], d[4 * lane + 2], d[4 * lane + 3]};
  if (kType == 0) mma_16x8x16(own_d, own_a, own_b, Half{});
  if (kType == 1) mma_16x8x16(own_d, own_a, own_b, BFloat16{});
  if (kType == 2) mma_16x8x8_tf32(own_d, own_a, own_b);
  for (int r = 0; r < 4; ++r) d[4 * lane + r] = own_d[r];
}

// kind: 0 x4, 1 x4 transposed, 2 x2, 3 x2 transposed; row i of the matrices is rows[i].
__global__ void load_fragments(int kind, const uint4* rows, uint32_t* registers) {
  HEPFEED_SHARED(uint4, tile, [32]);
  const unsigned lane = threadIdx.x;
  tile[lane] = rows[lane];
  __syncthreads();
  uint32_t four[4] = {}, two[2] = {};
  if (kind == 0) load_matrix_x4(four, &tile[lane]);
  if (kind == 1) load_matrix_x4_transposed(four, &tile[lane]);
  if (kind == 2) load_matrix_x2(two, &tile[lane % 16]);
  if (kind == 3) load_matrix_x2_transposed(two, &tile[lane % 16]);
  for (int r = 0; r < 4; ++r) registers[4 * lane + r] = kind < 2 ? four[r] : (r < 2 ? two[r] : 0);
}

template <class T>
__global__ void widen(int64_t count, const T* numbers, float* wide) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) wide[i] = to_float(numbers[i]);
}

template <class T>
__global__ void narrow(int64_t count, const float* numbers, T* narrowed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) narrowed[i] = from_float<T>(numbers[i]);
}

__global__ void round_to_tf32(int64_t count, const float* numbers, uint32_t* rounded) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) rounded[i] = to_tf32(numbers[i]);
}

__global__ void count_bits(int64_t count, const uint64_t* words, uint64_t* results) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const uint64_t word = words[i];
  const uint32_t low = static_cast<uint32_t>(word);
  uint64_t* const own = results + 10 * i;
  own[0] = static_cast<uint64_t>(__popc(low));
  own[1] = static_cast<uint64_t>(__popcll(word));
  own[2] = static_cast<uint64_t>(__ffs(static_cast<int>(low)));
  own[3] = static_cast<uint64_t>(__ffsll(static_cast<long long>(word)));
  own[4] = static_cast<uint64_t>(__clz(static_cast<int>(low)));
  own[5] = static_cast<uint64_t>(__clzll(static_cast<long long>(word)));
  own[6] = __brev(low);
  own[7] = __brevll(word);
  own[8] = __umulhi(low, static_cast<uint32_t>(word >> 32));
  own[9] = __umul64hi(word, ~word);
}

}  // namespace hepfeed::device::kernels
