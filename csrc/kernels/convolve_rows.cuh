// Sparse convolution along a plan for few channels of input: each thread makes kSlice channels of one
// position.
//
// A chunk of tile_copy.cuh would be mostly zeros there.  What must be read is the table, 4 bytes for each tap
// and position; threads of a warp read it in order, skip the taps that no position near them has, and read
// all weights at the same address.
#pragma once

#include <cstdint>

#include "kernels/convolution.h"
#include "kernels/pieces.cuh"
#include "kernels/sums.cuh"
#include "kernels/tile_taps.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int kSlice = 16;        // channels of the output that a thread makes
constexpr int kMostSlices = 2;    // of a block, one after another in threadIdx.y
constexpr int kMostDepth = 8;     // channels of the input, of one group
constexpr int kRowThreads = 128;  // positions of a block
constexpr int kWeightRows = 64;   // (tap, channel) whose weights are in shared memory at a time
constexpr int kWeightPitch =
    kMostSlices * kSlice + 4;  // so that rows begin in different banks, and 16-byte aligned

// block (kRowThreads, slices), grid (blocks of positions times blocks of slices, the latter first; groups)
template <class T>
__global__ void __launch_bounds__(kRowThreads* kMostSlices, sizeof(T) == 8 ? 2 : 4)
    convolve_rows(Convolution<T> work) {
  HEPFEED_SHARED(int32_t, listed, [kWindowTaps]);
  HEPFEED_SHARED(SumOf<T>, weights, [kWeightRows][kWeightPitch]);
  const int columns = static_cast<int>(blockDim.y) * kSlice;
  const int column_blocks = (work.width + columns - 1) / columns;
  const int row_block = static_cast<int>(blockIdx.x) / column_blocks;
  const int first_column = static_cast<int>(blockIdx.x) % column_blocks * columns;
  const int64_t group = blockIdx.y;
  const int thread = static_cast<int>(threadIdx.y) * kRowThreads + static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.y) * kRowThreads;
  const int64_t position = static_cast<int64_t>(row_block) * kRowThreads + threadIdx.x;
  const bool is_there = position < work.positions;
  constexpr int kTiles = kRowThreads / kTileRows;
  const int tiles = (work.positions + kTileRows - 1) / kTileRows, first_tile = row_block * kTiles;
  const int block_tiles = tiles - first_tile < kTiles ? tiles - first_tile : kTiles;
  const uint32_t* const tile_taps = work.tile_taps + static_cast<int64_t>(first_tile) * work.words;

  const int64_t in_channels = static_cast<int64_t>(work.groups) * work.depth;
  const T* const features = work.features + group * work.depth;
  const T* const weight = work.weight + (group * work.width + first_column) * work.taps * work.depth;
  const int here = work.width - first_column < columns ? work.width - first_column : columns;
  const int slice = static_cast<int>(threadIdx.y) * kSlice;
  const int taps_at_once = kWeightRows / work.depth;
  SumOf<T> sums[kSlice] = {};
  for (int first_tap = 0; first_tap < work.taps; first_tap += kWindowTaps) {
    const int count = list_taps(tile_taps, work.words, block_tiles, first_tap, thread, threads, listed);
    for (int first = 0; first < count; first += taps_at_once) {
      const int taps = count - first < taps_at_once ? count - first : taps_at_once;
      const int rows = taps * work.depth;
      __syncthreads();  // the list is complete, and earlier weights have been used
      for (int i = thread; i < rows * columns; i += threads) {
        const int column = i / rows, row = i % rows;
        const int64_t tap = listed[first + row / work.depth];
        weights[row][column] =
            column < here ? widened(weight[(column * static_cast<int64_t>(work.taps) + tap) * work.depth +
                                           row % work.depth])
                          : SumOf<T>(0);
      }
      __syncthreads();
      const auto in_row = [&](int tap) {
        return is_there && tap < taps
                   ? work.table[static_cast<int64_t>(listed[first + tap]) * work.positions + position]
                   : -1;
      };
      int64_t next = in_row(0);
      for (int tap = 0; tap < taps; ++tap) {
        const int64_t row = next;
        next = in_row(tap + 1);  // is on its way while the products of this one are made
        if (row < 0) continue;
        for (int channel = 0; channel < work.depth; ++channel) {
          const SumOf<T> number = widened(features[row * in_channels + channel]);
          const SumOf<T>* const factors = &weights[tap * work.depth + channel][slice];
#pragma unroll
          for (int i = 0; i < kSlice; ++i) sums[i] = fma(number, factors[i], sums[i]);
        }
      }
    }
    __syncthreads();  // the list has been used
  }

  if (!is_there || slice >= here) return;
  const int64_t channel = group * work.width + first_column + slice;
  T* const to = work.out + work.rows[position] * (static_cast<int64_t>(work.groups) * work.width) + channel;
  constexpr int kItems = kPieceBytes / sizeof(T);
#pragma unroll
  for (int first = 0; first < kSlice; first += kItems) {
    Piece<T> piece;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const bool has_bias = work.bias && slice + first + i < here;
      piece.items[i] =
          narrowed<T>(sums[first + i] + (has_bias ? widened(work.bias[channel + first + i]) : SumOf<T>(0)));
    }
    store_piece(to + first, piece, here - slice - first);
  }
}

}  // namespace hepfeed::device
