// Products of small matrices of bfloat16, summed in float32, by AMX or AVX512-BF16.
//
// Both instructions take numbers below 2^-126 in magnitude for zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/bfloat16.h"
#include "cpu/isa.h"

#if HEPFEED_X86

namespace hepfeed {

// Sums are made in tiles of 16 x 16, in steps of 32 terms.
constexpr size_t kTile = 16;
constexpr size_t kStep = 32;
constexpr size_t kPackedTile = kStep * kTile;  // items of one tile of `right`

// sums[to[r] - first] += sum over the terms t of left[r, t] right[t], for the rows r < rows.
struct Product {
  // Item (r, t) lies at r * left_row + t / 32 * left_step + t % 32; rows up to the next multiple of 16 are
  // read.
  const bfloat16* left;
  size_t left_row, left_step;
  size_t rows;
  // (tiles, steps, 16, 16, 2): the terms 2 t and 2 t + 1 of a column lie side by side.
  const bfloat16* right;
  size_t steps, tiles;
  // Rows of 16 tiles items, sums_row items apart.  Where `to` is null, to[r] - first is r, and `rows` a
  // multiple of 16.
  float* sums;
  size_t sums_row;
  const int32_t* to;
  int32_t first;
};

void add_product_avx512(const Product& product);

// Only in threads that hold a TileState.
void add_product_amx(const Product& product);

// The configuration of the tiles of this thread; does nothing where `wanted` is false.
class TileState {
 public:
  explicit TileState(bool wanted);
  ~TileState();
  TileState(const TileState&) = delete;
  TileState& operator=(const TileState&) = delete;

 private:
  const bool held_;
};

}  // namespace hepfeed

#endif
