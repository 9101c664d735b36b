// What a block multiplies for the gradient of a weight: sums[l, r] += left[p, l] right[p, r] over some pairs
// p, whose rows lie in shared memory as they came, channels side by side.
//
// Each product is a type with
//   Number, Sum            of the rows and of the sums
//   kRows, kColumns        channels of the left and of the right side
//   kThreads               of a block
//   kDepth                 pairs that are added at once
//   kLeftStride, kRightStride  items of shared memory from one pair to the next; rows are 16-byte aligned
//   add(left, right)       of all threads: adds the products of kDepth pairs
//   store(tile)            writes the sums to (kRows, kColumns)
// and holds the sums of its thread in registers.
//
// Both operands have the pairs as their rows where tensor cores want them as columns, so fragments are read
// transposed.  The layouts of fragments are those of mma.m16n8k16 and mma.m16n8k8 in the PTX ISA.
#pragma once

#include <cstdint>

#include "port.h"

namespace hepfeed::device {

// Numbers of one vector access.
template <class T, int N>
struct alignas(sizeof(T) * N) Packed {
  T items[N];
};

// Where the warps of a block are in a tile, each with (WarpRows, WarpColumns) of it.
template <int Rows, int Columns, int WarpRows, int WarpColumns>
struct WarpGrid {
  static constexpr int kAcross = Columns / WarpColumns, kThreads = 32 * (Rows / WarpRows) * kAcross;
  static_assert(Rows % WarpRows == 0 && Columns % WarpColumns == 0);

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int row() { return static_cast<int>(threadIdx.x) / 32 / kAcross * WarpRows; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) / 32 % kAcross * WarpColumns; }
};

// Writes a fragment of 16 x 8 sums, whose first is sums[0] of lane 0, to a tile.
template <int Columns>
__device__ void store_fragment(const float (&sums)[4], float* tile, int row, int column, int lane) {
  float* const to = tile + (row + lane / 4) * Columns + column + lane % 4 * 2;
  *reinterpret_cast<float2*>(to) = make_float2(sums[0], sums[1]);
  *reinterpret_cast<float2*>(to + 8 * Columns) = make_float2(sums[2], sums[3]);
}

// bfloat16 or float16 on tensor cores, summed in float32.
template <class T, int Rows, int Columns, int WarpRows, int WarpColumns>
class HalfProduct {
 public:
  using Number = T;
  using Sum = float;
  using Grid = WarpGrid<Rows, Columns, WarpRows, WarpColumns>;
  static constexpr int kRows = Rows, kColumns = Columns, kThreads = Grid::kThreads;
  static constexpr int kDepth = Rows * Columns > 2048 ? 32 : 64;
  // Eight rows, 16 bytes of each, then lie in different banks.
  static constexpr int kLeftStride = Rows + 8, kRightStride = Columns > 8 ? Columns + 8 : 8;
  static_assert(WarpRows % 16 == 0 && (WarpColumns == 8 || WarpColumns % 16 == 0));

  __device__ void add(const T* left, const T* right) {
    const int lane = Grid::lane(), matrix = lane / 8, of_matrix = lane % 8;
    // A matrix of 8 x 8 is read by eight lanes, each of which names one pair of it.
    const T* const l = left + (matrix / 2 * 8 + of_matrix) * kLeftStride + Grid::row() + matrix % 2 * 8;
    // Where there are two matrices alone, lanes 16 to 31 name those of 0 to 15 again: they need be valid.
    const int second = WarpColumns == 8 ? 0 : matrix / 2 * 8;
    const T* const r = right + (matrix % 2 * 8 + of_matrix) * kRightStride + Grid::column() + second;
#pragma unroll
    for (int p = 0; p < kDepth; p += 16) {
      uint32_t a[WarpRows / 16][4], b[WarpColumns / 8][2];
#pragma unroll
      for (int i = 0; i < WarpRows / 16; ++i) load_matrix_x4_transposed(a[i], l + p * kLeftStride + i * 16);
      if constexpr (WarpColumns == 8) {
        load_matrix_x2_transposed(b[0], r + p * kRightStride);
      } else {
#pragma unroll
        for (int j = 0; j < WarpColumns / 8; j += 2) {
          uint32_t two[4];
          load_matrix_x4_transposed(two, r + p * kRightStride + j * 8);
          b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
        }
      }
#pragma unroll
      for (int i = 0; i < WarpRows / 16; ++i)
#pragma unroll
        for (int j = 0; j < WarpColumns / 8; ++j) mma_16x8x16(sums_[i][j], a[i], b[j], T{});
    }
  }

  __device__ void store(float* tile) const {
#pragma unroll
    for (int i = 0; i < WarpRows / 16; ++i)
#pragma unroll
      for (int j = 0; j < WarpColumns / 8; ++j)
        store_fragment<Columns>(sums_[i][j], tile, Grid::row() + i * 16, Grid::column() + j * 8,
                                Grid::lane());
  }

 private:
  float sums_[WarpRows / 16][WarpColumns / 8][4] = {};
};

// float32 on tensor cores, rounded to TF32 as it is multiplied and summed in float32.
template <int Rows, int Columns, int WarpRows, int WarpColumns>
class TensorFloatProduct {
 public:
  using Number = float;
  using Sum = float;
  using Grid = WarpGrid<Rows, Columns, WarpRows, WarpColumns>;
  static constexpr int kRows = Rows, kColumns = Columns, kThreads = Grid::kThreads;
  static constexpr int kDepth = 32;
  // Lane l reads channel l / 4 of pair l % 4: strides of 8 above a multiple of 32 put all in different banks.
  static constexpr int kLeftStride = Rows + 8, kRightStride = Columns > 8 ? Columns + 8 : 8;
  static_assert(WarpRows % 16 == 0 && WarpColumns % 8 == 0);

  __device__ void add(const float* left, const float* right) {
    const int channel = Grid::lane() / 4, pair = Grid::lane() % 4;
    const float* const l = left + pair * kLeftStride + Grid::row() + channel;
    const float* const r = right + pair * kRightStride + Grid::column() + channel;
#pragma unroll
    for (int p = 0; p < kDepth; p += 8) {
      uint32_t a[WarpRows / 16][4], b[WarpColumns / 8][2];
#pragma unroll
      for (int i = 0; i < WarpRows / 16; ++i)
#pragma unroll
        for (int part = 0; part < 4; ++part)
          a[i][part] = to_tf32(l[(p + part / 2 * 4) * kLeftStride + i * 16 + part % 2 * 8]);
#pragma unroll
      for (int j = 0; j < WarpColumns / 8; ++j)
#pragma unroll
        for (int part = 0; part < 2; ++part) b[j][part] = to_tf32(r[(p + part * 4) * kRightStride + j * 8]);
#pragma unroll
      for (int i = 0; i < WarpRows / 16; ++i)
#pragma unroll
        for (int j = 0; j < WarpColumns / 8; ++j) mma_16x8x8_tf32(sums_[i][j], a[i], b[j]);
    }
  }

  __device__ void store(float* tile) const {
#pragma unroll
    for (int i = 0; i < WarpRows / 16; ++i)
#pragma unroll
      for (int j = 0; j < WarpColumns / 8; ++j)
        store_fragment<Columns>(sums_[i][j], tile, Grid::row() + i * 16, Grid::column() + j * 8,
                                Grid::lane());
  }

 private:
  float sums_[WarpRows / 16][WarpColumns / 8][4] = {};
};

// float32 or float64 by fused multiply-adds; a thread has (ThreadRows, ThreadColumns) of the tile.
template <class T, int Rows, int Columns, int ThreadRows, int ThreadColumns>
class PlainProduct {
 public:
  using Number = T;
  using Sum = T;
  static constexpr int kRows = Rows, kColumns = Columns;
  static constexpr int kAcross = Columns / ThreadColumns, kThreads = Rows / ThreadRows * kAcross;
  static constexpr int kDepth = sizeof(T) == 8 ? 16 : 32;
  static constexpr int kLeftStride = Rows, kRightStride = Columns;

  __device__ void add(const T* left, const T* right) {
#pragma unroll 8
    for (int p = 0; p < kDepth; ++p) {
      T l[ThreadRows], r[ThreadColumns];
      read(left + p * kLeftStride + row(), l);
      read(right + p * kRightStride + column(), r);
#pragma unroll
      for (int i = 0; i < ThreadRows; ++i)
#pragma unroll
        for (int j = 0; j < ThreadColumns; ++j) sums_[i][j] = fma(l[i], r[j], sums_[i][j]);
    }
  }

  __device__ void store(T* tile) const {
#pragma unroll
    for (int i = 0; i < ThreadRows; ++i) write(sums_[i], tile + (row() + i) * Columns + column());
  }

 private:
  static constexpr int kWidest = 16 / sizeof(T);  // what one access reads

  __device__ static int row() { return static_cast<int>(threadIdx.x) / kAcross * ThreadRows; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % kAcross * ThreadColumns; }

  template <int N>
  static constexpr int kWide = N < kWidest ? N : kWidest;

  template <int N>
  __device__ static void read(const T* from, T (&to)[N]) {
    static_assert(N % kWide<N> == 0);
#pragma unroll
    for (int n = 0; n < N; n += kWide<N>) {
      const auto some = *reinterpret_cast<const Packed<T, kWide<N>>*>(from + n);
#pragma unroll
      for (int i = 0; i < kWide<N>; ++i) to[n + i] = some.items[i];
    }
  }

  template <int N>
  __device__ static void write(const T (&from)[N], T* to) {
#pragma unroll
    for (int n = 0; n < N; n += kWide<N>) {
      Packed<T, kWide<N>> some;
#pragma unroll
      for (int i = 0; i < kWide<N>; ++i) some.items[i] = from[n + i];
      *reinterpret_cast<Packed<T, kWide<N>>*>(to + n) = some;
    }
  }

  T sums_[ThreadRows][ThreadColumns] = {};
};

}  // namespace hepfeed::device
