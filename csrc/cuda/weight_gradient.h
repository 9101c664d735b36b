// The gradients of the weight and of the bias of a sparse convolution; see kernels/weight_gradient.cuh and
// kernels/column_sum.cuh.  All addresses are of device memory that the caller owns; work is queued on
// `stream`.
#pragma once

#include <cstdint>

#include "cuda/float_type.h"
#include "kernels/map_pairs.h"
#include "launch.h"

namespace hepfeed::device {

// What numbers are, and how they are multiplied; TF32 is for float32 numbers.
enum class Arithmetic { float32, float64, bfloat16, float16, tf32 };

// Channels of a tile of sums: `rows` of the left side and `columns` of the right side.
struct TileShape {
  int rows, columns;
};

// Tiles are numbered from 0 on; the larger ones come first.
constexpr int kTileShapes = 4;
TileShape tile_shape(int tile);
bool has_tile(Arithmetic arithmetic, int tile);

// Sets *fault, 0 before, to 1 where a pair has a row that is not there, in any order of rows, or where
// offsets are wrong.
void check_pairs(const MapPairs& map, int32_t* fault, Stream stream);

// Cuts the pairs of taps, offsets (taps + 1), into work items of `chunk` pairs at most.  There is room for
// `items`, of which pairs / chunk + taps are enough.  first_item (taps + 1); work (items, 2): first pair and
// the one behind the last.
void make_work_items(const int64_t* offsets, int32_t taps, int64_t chunk, int64_t items, int64_t* first_item,
                     int64_t* work, Stream stream);

// One side of the products: values (rows, groups * channels), and the row of each pair.
struct PairSide {
  const void* values;
  const int32_t* numbers;
  int64_t rows;
  int32_t channels;  // of a group
};

// gradient (C_out, taps, C_in / groups): for each tap the sum of the outer products of its pairs.  `work` and
// `first_item` are of make_work_items; `sums` has room for (items, tiles, rows, columns) numbers of float32
// (float64 for float64), where there are groups * ceil(left / rows) * ceil(right / columns) tiles.  `turned`
// says that the left side is the input and the right one the gradient of the output.
// Throws std::invalid_argument where there is no such tile.
void weight_gradient(Arithmetic arithmetic, int tile, const PairSide& left, const PairSide& right,
                     bool turned, int32_t groups, int32_t taps, const int64_t* first_item,
                     const int64_t* work, int64_t items, void* sums, void* gradient, Stream stream);

// out (columns): the sums over the rows of values (rows, columns).  `sums` has room for (ceil(rows /
// block_rows), columns) numbers of float32 (float64 for float64).
void column_sum(FloatType type, const void* values, int64_t rows, int64_t columns, int64_t block_rows,
                void* sums, void* out, Stream stream);

}  // namespace hepfeed::device
