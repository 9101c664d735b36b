#include <algorithm>
#include <stdexcept>

#include "cuda/weight_gradient.h"
#include "kernels/column_sum.cuh"
#include "kernels/outer_products.cuh"
#include "kernels/pair_check.cuh"
#include "kernels/weight_gradient.cuh"

namespace hepfeed::device {
namespace {

constexpr TileShape kShapes[kTileShapes] = {{128, 128}, {64, 64}, {32, 32}, {64, 8}};
constexpr unsigned kMostSlices = 8;     // so that a block reads 128 bytes of an item at least
constexpr int64_t kCheckBlocks = 1024;  // fill the largest cards; threads go on to further pairs

int64_t parts(int64_t all, int64_t of_one) { return (all + of_one - 1) / of_one; }

template <class Product>
struct Kind {
  using Type = Product;
};

// Calls body(Kind<Product>{}) for the product of 16-bit numbers by a tile.
template <class T, class Body>
bool with_half_product(int tile, const Body& body) {
  if (tile == 0) return body(Kind<HalfProduct<T, 128, 128, 32, 64>>{}), true;
  if (tile == 1) return body(Kind<HalfProduct<T, 64, 64, 32, 32>>{}), true;
  if (tile == 2) return body(Kind<HalfProduct<T, 32, 32, 16, 16>>{}), true;
  if (tile == 3) return body(Kind<HalfProduct<T, 64, 8, 16, 8>>{}), true;
  return false;
}

// Calls body(Kind<Product>{}) for the product of a tile; false where there is none.
template <class Body>
bool with_product(Arithmetic arithmetic, int tile, const Body& body) {
  switch (arithmetic) {
    case Arithmetic::bfloat16:
      return with_half_product<BFloat16>(tile, body);
    case Arithmetic::float16:
      return with_half_product<Half>(tile, body);
    case Arithmetic::tf32:
      if (tile == 1) return body(Kind<TensorFloatProduct<64, 64, 32, 32>>{}), true;
      if (tile == 2) return body(Kind<TensorFloatProduct<32, 32, 16, 16>>{}), true;
      if (tile == 3) return body(Kind<TensorFloatProduct<64, 8, 16, 8>>{}), true;
      return false;
    case Arithmetic::float32:
      if (tile == 1) return body(Kind<PlainProduct<float, 64, 64, 8, 4>>{}), true;
      if (tile == 2) return body(Kind<PlainProduct<float, 32, 32, 4, 2>>{}), true;
      if (tile == 3) return body(Kind<PlainProduct<float, 64, 8, 4, 1>>{}), true;
      return false;
    case Arithmetic::float64:
      if (tile == 2) return body(Kind<PlainProduct<double, 32, 32, 4, 2>>{}), true;
      if (tile == 3) return body(Kind<PlainProduct<double, 64, 8, 4, 1>>{}), true;
      return false;
  }
  return false;
}

template <class T>
PairedRows<T> paired_rows(const PairSide& side, int32_t groups) {
  const bool aligned =
      side.channels * sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(side.values) % 16 == 0;
  return {static_cast<const T*>(side.values),
          side.numbers,
          side.rows,
          groups * side.channels,
          side.channels,
          aligned};
}

template <class T>
void sum_columns(const void* values, int64_t rows, int64_t columns, int64_t block_rows, void* sums, void* out,
                 Stream stream) {
  constexpr int64_t kPiece = 16 / sizeof(T);
  const int64_t pieces = parts(columns, kPiece), blocks = parts(rows, block_rows);
  unsigned across = 1;
  while (across < 32 && across < pieces) across *= 2;
  const bool aligned = columns % kPiece == 0 && reinterpret_cast<uintptr_t>(values) % 16 == 0;
  auto* const made = static_cast<SumOf<T>*>(sums);
  launch(add_rows_kernel<T>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(parts(pieces, across))),
         dim3(across, kColumnThreads / across), 0, stream, static_cast<const T*>(values), rows, columns,
         block_rows, aligned, made);
  launch(add_row_blocks_kernel<T>, dim3(static_cast<unsigned>(parts(columns, 32))), dim3(32, kRowSlices), 0,
         stream, made, blocks, columns, static_cast<T*>(out));
}

}  // namespace

TileShape tile_shape(int tile) {
  if (tile < 0 || tile >= kTileShapes) throw std::invalid_argument("there is no such tile");
  return kShapes[tile];
}

bool has_tile(Arithmetic arithmetic, int tile) {
  return with_product(arithmetic, tile, [](auto) {});
}

void check_pairs(const MapPairs& map, int32_t* fault, Stream stream) {
  const int64_t most = std::max<int64_t>(map.pairs, map.taps);
  const int64_t blocks = std::clamp<int64_t>(parts(most, kCheckThreads), 1, kCheckBlocks);
  launch(check_pairs_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kCheckThreads), 0, stream, map, fault);
}

void make_work_items(const int64_t* offsets, int32_t taps, int64_t chunk, int64_t items, int64_t* first_item,
                     int64_t* work, Stream stream) {
  launch(make_work_items_kernel, dim3(1), dim3(kItemThreads), 0, stream, offsets, taps, chunk, items,
         first_item, reinterpret_cast<WorkItem*>(work));
}

void weight_gradient(Arithmetic arithmetic, int tile, const PairSide& left, const PairSide& right,
                     bool turned, int32_t groups, int32_t taps, const int64_t* first_item,
                     const int64_t* work, int64_t items, void* sums, void* gradient, Stream stream) {
  const auto run = [&](auto kind) {
    using Product = typename decltype(kind)::Type;
    using Number = typename Product::Number;
    using Sum = typename Product::Sum;
    const int64_t places = static_cast<int64_t>(groups) * left.channels * right.channels;
    if (places >= int64_t{1} << 31) throw std::invalid_argument("a tap has 2^31 weights or more");
    const Tiles tiles{groups, static_cast<int32_t>(parts(left.channels, Product::kRows)),
                      static_cast<int32_t>(parts(right.channels, Product::kColumns))};
    auto* const made = static_cast<Sum*>(sums);
    launch(outer_products_kernel<Product>, dim3(static_cast<unsigned>(items * tiles.count())),
           dim3(Product::kThreads), shared_bytes<Product>(), stream, paired_rows<Number>(left, groups),
           paired_rows<Number>(right, groups), reinterpret_cast<const WorkItem*>(work), tiles, made);
    // As many slices as an average tap has items.
    unsigned slices = 1;
    while (slices < kMostSlices && 2 * slices * static_cast<int64_t>(taps) <= items) slices *= 2;
    const unsigned across = kSumThreads / slices;
    launch(add_items_kernel<Sum, Number>,
           dim3(static_cast<unsigned>(parts(places, across)), static_cast<unsigned>(taps)),
           dim3(across, slices), 0, stream, made, first_item, tiles, Product::kRows, Product::kColumns,
           left.channels, right.channels, turned, static_cast<Number*>(gradient));
  };
  if (!with_product(arithmetic, tile, run))
    throw std::invalid_argument("there is no such tile for this arithmetic");
}

void column_sum(FloatType type, const void* values, int64_t rows, int64_t columns, int64_t block_rows,
                void* sums, void* out, Stream stream) {
  with_float_type(type, [&](auto zero) {
    sum_columns<decltype(zero)>(values, rows, columns, block_rows, sums, out, stream);
  });
}

}  // namespace hepfeed::device
