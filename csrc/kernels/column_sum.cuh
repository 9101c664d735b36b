// Sums over the rows of a matrix, the gradient of a bias: out[c] = the sum over rows of values[row, c].
//
// Every number is read once, rows x columns x bytes, which is the floor.  A block adds some rows for some
// columns; then the sums of blocks are added.  Which rows a thread adds, and in which order threads and
// blocks are added, depends on the sizes alone.
#pragma once

#include <cstdint>

#include "kernels/sums.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int kColumnThreads = 256;

// Makes sums (row blocks, columns).  Blocks are (across, kColumnThreads / across), across a power of 2, and
// have `across` pieces of 16 bytes of `block_rows` rows.  `aligned` says that rows are whole aligned pieces.
template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    add_rows_kernel(const T* values, int64_t rows, int64_t columns, int64_t block_rows, bool aligned,
                    SumOf<T>* sums) {
  constexpr int kPiece = 16 / sizeof(T);
  struct alignas(16) Piece {
    T items[kPiece];
  };
  HEPFEED_SHARED(SumOf<T>, shared, [kPiece][kColumnThreads]);
  const int64_t first_column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kPiece;
  const int64_t left = columns - first_column;
  const int there = left >= kPiece ? kPiece : left > 0 ? static_cast<int>(left) : 0;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * block_rows;
  const int64_t last = first + block_rows < rows ? first + block_rows : rows;
  SumOf<T> sum[kPiece] = {};
  if (there > 0) {
#pragma unroll 4
    for (int64_t row = first + threadIdx.y; row < last; row += blockDim.y) {
      const T* const from = values + row * columns + first_column;
      if (aligned) {
        const Piece piece = *reinterpret_cast<const Piece*>(from);
#pragma unroll
        for (int c = 0; c < kPiece; ++c) sum[c] += widened(piece.items[c]);
      } else {
#pragma unroll
        for (int c = 0; c < kPiece; ++c)
          if (c < there) sum[c] += widened(from[c]);
      }
    }
  }
  const unsigned place = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int c = 0; c < kPiece; ++c) shared[c][place] = sum[c];
  __syncthreads();
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    if (threadIdx.y < half)
#pragma unroll
      for (int c = 0; c < kPiece; ++c) shared[c][place] += shared[c][place + half * blockDim.x];
    __syncthreads();
  }
  if (threadIdx.y == 0)
    for (int c = 0; c < there; ++c) sums[blockIdx.x * columns + first_column + c] = shared[c][place];
}

// Adds the sums of row blocks.  Blocks are (32, kRowSlices): slice s adds the blocks s, s + kRowSlices, ...,
// and then the slices are added two and two.
constexpr int kRowSlices = 32;
template <class T>
__global__ void __launch_bounds__(32 * kRowSlices)
    add_row_blocks_kernel(const SumOf<T>* sums, int64_t blocks, int64_t columns, T* out) {
  HEPFEED_SHARED(SumOf<T>, slices, [kRowSlices][32]);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  SumOf<T> sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (int64_t block = threadIdx.y; block < blocks; block += kRowSlices)
      sum += sums[block * columns + column];
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = kRowSlices / 2; half > 0; half /= 2) {
    if (threadIdx.y < half) slices[threadIdx.y][threadIdx.x] += slices[threadIdx.y + half][threadIdx.x];
    __syncthreads();
  }
  if (threadIdx.y == 0 && column < columns) out[column] = narrowed<T>(slices[0][threadIdx.x]);
}

}  // namespace hepfeed::device
