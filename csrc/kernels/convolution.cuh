// Sparse convolution along a plan, as a product of matrices whose left one is gathered on demand: a block
// makes the sums of kRows positions and kColumns channels of a group, and passes over the taps that none of
// its positions has.
//
// For C_in and C_out channels, P pairs and M rows there are 2 P C_in C_out operations at least, and more
// where positions of a block differ in their taps.  Each row of features is read once for each of its pairs
// and block of columns, the weight once for each block of rows, mostly from the second-level cache: the
// caches of a card hold the features of most layers.  From memory come features, weight and table once, at
// least.  Each number of the output is written once, by the block that owns it.  A position without a pair of
// a tap that another one of its block has adds 0 times the weight: numbers of the weight that are not finite
// reach all rows.
#pragma once

#include <cstdint>

#include "kernels/convolution.h"
#include "kernels/pieces.cuh"
#include "kernels/sums.cuh"
#include "kernels/tile_copy.cuh"
#include "kernels/tile_products.cuh"
#include "kernels/tile_taps.cuh"
#include "port.h"

namespace hepfeed::device {

// What a block makes, and how: kStages - 1 chunks are on their way while one is multiplied, and kBlocks
// blocks are to find place in a multiprocessor.
template <class Product_, int kRows_, int kColumns_, int kStages_, int kBlocks_>
struct ConvolutionTile {
  using Product = Product_;
  using Number = typename Product::Number;
  using Copier = ChunkCopier<Number, kRows_, kColumns_, Product::kThreads>;
  static constexpr int kRows = kRows_, kColumns = kColumns_, kStages = kStages_, kBlocks = kBlocks_;
  static constexpr int kThreads = Product::kThreads;
  static constexpr int kPieceItems = kPieceBytes / sizeof(Number);
  static constexpr int kPitch = kColumns + kPieceItems;  // of a row of results in shared memory
  static constexpr int kCopyBytes = kStages * Copier::kStageBytes;
  static constexpr int kResultBytes = kRows * kPitch * static_cast<int>(sizeof(Number));
  static constexpr int kSharedBytes = kCopyBytes > kResultBytes ? kCopyBytes : kResultBytes;
  static_assert(kRows % kTileRows == 0, "a block has whole tiles");
};

// grid (blocks of positions times blocks of columns, the latter first; groups)
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    convolve_tiles(Convolution<typename Tile::Number> work) {
  using T = typename Tile::Number;
  HEPFEED_DYNAMIC_SHARED(unsigned char, shared);
  HEPFEED_SHARED(int32_t, listed, [kWindowTaps]);
  const int column_blocks = (work.width + Tile::kColumns - 1) / Tile::kColumns;
  const int row_block = static_cast<int>(blockIdx.x) / column_blocks;
  const int first_position = row_block * Tile::kRows, group = static_cast<int>(blockIdx.y);
  const int first_column = static_cast<int>(blockIdx.x) % column_blocks * Tile::kColumns;
  constexpr int kTiles = Tile::kRows / kTileRows;
  const int tiles = (work.positions + kTileRows - 1) / kTileRows, first_tile = row_block * kTiles;
  const int block_tiles = tiles - first_tile < kTiles ? tiles - first_tile : kTiles;
  const uint32_t* const tile_taps = work.tile_taps + static_cast<int64_t>(first_tile) * work.words;

  typename Tile::Product product;
  typename Tile::Copier copier(work, first_position, first_column, group);
  for (int first_tap = 0; first_tap < work.taps; first_tap += kWindowTaps) {
    const int count = list_taps(tile_taps, work.words, block_tiles, first_tap, static_cast<int>(threadIdx.x),
                                Tile::kThreads, listed);
    __syncthreads();
    const int chunks = copier.begin(listed, count);
#pragma unroll
    for (int chunk = 0; chunk < Tile::kStages - 1; ++chunk) {
      if (chunk < chunks) copier.copy(shared + chunk * Tile::Copier::kStageBytes);
      copy_async_commit();
    }
    int stage = 0, next_stage = Tile::kStages - 1;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      copy_async_wait<Tile::kStages - 2>();
      __syncthreads();  // the chunk is there for all, and the stage before it has been read by all
      if (chunk + Tile::kStages - 1 < chunks) copier.copy(shared + next_stage * Tile::Copier::kStageBytes);
      copy_async_commit();
      const unsigned char* const rows = shared + stage * Tile::Copier::kStageBytes;
      product.add(rows, rows + Tile::kRows * kChunkBytes);
      next_stage = stage;
      stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
    }
    copy_async_wait<0>();
    __syncthreads();  // shared memory is free again
  }

  // By way of shared memory, so that rows are written in pieces.
  T* const results = reinterpret_cast<T*>(shared);
  const int64_t channel = static_cast<int64_t>(group) * work.width + first_column;
  const int columns = work.width - first_column;
  product.for_sums([&](int row, int column, SumOf<T> sum) {
    if (work.bias && column < columns) sum += widened(work.bias[channel + column]);
    results[row * Tile::kPitch + column] = narrowed<T>(sum);
  });
  __syncthreads();
  constexpr int kPieces = Tile::kColumns / Tile::kPieceItems;
  const int64_t out_channels = static_cast<int64_t>(work.groups) * work.width;
  for (int i = static_cast<int>(threadIdx.x); i < Tile::kRows * kPieces; i += Tile::kThreads) {
    const int row = i / kPieces, column = i % kPieces * Tile::kPieceItems;
    if (first_position + row >= work.positions || column >= columns) continue;
    T* const to = work.out + work.rows[first_position + row] * out_channels + channel + column;
    store_piece(to, *reinterpret_cast<const Piece<T>*>(results + row * Tile::kPitch + column),
                columns - column);
  }
}

}  // namespace hepfeed::device
