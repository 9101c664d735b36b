// Products of a chunk of rows with a chunk of columns, both in shared memory as tile_copy.cuh lays them out:
// sums[row][column] += sum over the chunk of rows[row][k] columns[column][k].
//
// Sums stay in registers.  for_sums(visit) calls visit(row, column, sum) for those of a thread.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/tile_copy.cuh"
#include "port.h"

namespace hepfeed::device {

// By tensor cores; each warp has kWarpRows x kWarpColumns.  T is Half, BFloat16, or float rounded to TF32.
// One mma takes two pieces: 16 numbers of 16 bits, or 8 of 32.
template <class T, int kRows, int kColumns, int kWarpRows, int kWarpColumns>
class TensorProduct {
 public:
  using Number = T;
  static constexpr int kThreads = (kRows / kWarpRows) * (kColumns / kWarpColumns) * 32;

  __device__ __forceinline__ TensorProduct()
      : lane_(threadIdx.x % 32),
        first_row_(static_cast<int>(threadIdx.x / 32) / (kColumns / kWarpColumns) * kWarpRows),
        first_column_(static_cast<int>(threadIdx.x / 32) % (kColumns / kWarpColumns) * kWarpColumns) {}

  __device__ __forceinline__ void add(const unsigned char* rows, const unsigned char* columns) {
    const int row = first_row_ + lane_ % 16, column = first_column_ + lane_ % 8 + lane_ / 16 * 8;
    const int row_at = piece_offset(row, lane_ / 16), column_at = piece_offset(column, lane_ / 8 % 2);
#pragma unroll
    for (int piece = 0; piece < kChunkPieces; piece += 2) {
      uint32_t a[kRowTiles][4], b[kColumnTiles][2];
      const unsigned char* from = rows + other_piece(row_at, piece);
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i, from += 16 * kChunkBytes) {
        load_matrix_x4(a[i], from);
        round_to_tf32(a[i]);
      }
      from = columns + other_piece(column_at, piece);
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2, from += 16 * kChunkBytes) {
        uint32_t two[4];
        load_matrix_x4(two, from);
        round_to_tf32(two);
        b[j][0] = two[0];
        b[j][1] = two[1];
        b[j + 1][0] = two[2];
        b[j + 1][1] = two[3];
      }
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) multiply(sums_[i][j], a[i], b[j]);
    }
  }

  template <class Visit>
  __device__ __forceinline__ void for_sums(const Visit& visit) const {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        const int row = first_row_ + i * 16 + lane_ / 4, column = first_column_ + j * 8 + lane_ % 4 * 2;
        visit(row, column, sums_[i][j][0]);
        visit(row, column + 1, sums_[i][j][1]);
        visit(row + 8, column, sums_[i][j][2]);
        visit(row + 8, column + 1, sums_[i][j][3]);
      }
  }

 private:
  static constexpr int kRowTiles = kWarpRows / 16, kColumnTiles = kWarpColumns / 8;
  static constexpr bool kIsTf32 = sizeof(T) == 4;

  static __device__ __forceinline__ void round_to_tf32(uint32_t (&numbers)[4]) {
    if constexpr (kIsTf32) {
#pragma unroll
      for (uint32_t& number : numbers) number = to_tf32(__uint_as_float(number));
    }
  }

  static __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2]) {
    if constexpr (kIsTf32)
      mma_16x8x8_tf32(d, a, b);
    else
      mma_16x8x16(d, a, b, T{});
  }

  const int lane_, first_row_, first_column_;
  float sums_[kRowTiles][kColumnTiles][4] = {};
};

// By fused multiply-adds, one term after another; each thread has kThreadRows x kThreadColumns.  The bits of
// a sum do not depend on the sizes.
template <class T, int kRows, int kColumns, int kThreadRows, int kThreadColumns>
class ScalarProduct {
 public:
  using Number = T;
  static constexpr int kThreads = (kRows / kThreadRows) * (kColumns / kThreadColumns);

  // A warp has 4 rows and 8 columns of threads, whose columns lie side by side: what they read at once is in
  // different banks or the same address, and what they write is one sector.
  __device__ __forceinline__ ScalarProduct()
      : row_(static_cast<int>(threadIdx.x) / kColumnThreads),
        column_(static_cast<int>(threadIdx.x) % kColumnThreads) {}

  __device__ __forceinline__ void add(const unsigned char* rows, const unsigned char* columns) {
    const int row_at = piece_offset(row_, 0), column_at = piece_offset(column_, 0);
#pragma unroll kUnrolled
    for (int piece = 0; piece < kChunkPieces; ++piece) {
      Piece<T> a[kThreadRows];
      const unsigned char* from = rows + other_piece(row_at, piece);
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i, from += kRowThreads * kChunkBytes)
        a[i] = *reinterpret_cast<const Piece<T>*>(from);
      from = columns + other_piece(column_at, piece);
#pragma unroll
      for (int j = 0; j < kThreadColumns; ++j, from += kColumnThreads * kChunkBytes) {
        const Piece<T> b = *reinterpret_cast<const Piece<T>*>(from);
#pragma unroll
        for (int k = 0; k < kItems; ++k)
#pragma unroll
          for (int i = 0; i < kThreadRows; ++i) sums_[i][j] = fma(a[i].items[k], b.items[k], sums_[i][j]);
      }
    }
  }

  template <class Visit>
  __device__ __forceinline__ void for_sums(const Visit& visit) const {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
      for (int j = 0; j < kThreadColumns; ++j)
        visit(row_ + i * kRowThreads, column_ + j * kColumnThreads, sums_[i][j]);
  }

 private:
  static constexpr int kRowThreads = kRows / kThreadRows, kColumnThreads = kColumns / kThreadColumns;
  static constexpr int kItems = kPieceBytes / sizeof(T);
  static constexpr int kUnrolled = 2;
  static_assert(kRowThreads % kChunkPieces == 0 && kColumnThreads == 8,
                "a thread has one place in all its rows");

  const int row_, column_;
  T sums_[kThreadRows][kThreadColumns] = {};
};

}  // namespace hepfeed::device
