#include <algorithm>

#include "cuda/row_shape.h"
#include "cuda/rows.h"
#include "kernels/fold_lists.cuh"
#include "kernels/row_lists.cuh"
#include "kernels/row_max.cuh"
#include "kernels/row_sum.cuh"

namespace hepfeed::device {
namespace {

constexpr int kThreads = 256;

// Where there is one chunk at most, no list is long.
int64_t chunks_of(int64_t entries) {
  return entries > kChunkEntries ? quotient_up(entries, kChunkEntries) : 0;
}

template <class Fold>
size_t fold_bytes(int64_t pieces, int64_t entries) {
  const auto parts = static_cast<size_t>(2 * pieces) * sizeof(typename Fold::Total);
  return static_cast<size_t>(chunks_of(entries)) * (parts + sizeof(int64_t));
}

template <class Fold>
void run_fold(const Fold& fold, const ListArrays& arrays, void* work, Stream stream) {
  if (arrays.count == 0 || fold.pieces.count == 0) return;
  using Total = typename Fold::Total;
  const RowLists lists{arrays.starts, arrays.columns, arrays.count, arrays.entries};
  const int64_t chunks = chunks_of(lists.entries);
  auto* const parts = static_cast<Total*>(work);
  auto* const opens = reinterpret_cast<int64_t*>(parts + chunks * 2 * fold.pieces.count);
  const int lists_of_block = kFoldThreads / std::min(fold.pieces.count, kFoldThreads);
  launch(fold_lists<Fold>, dim3(static_cast<unsigned>(chunks + quotient_up(lists.count, lists_of_block))),
         dim3(kFoldThreads), 0, stream, fold, lists, chunks, parts, opens);
  const dim3 grid(static_cast<unsigned>(chunks),
                  static_cast<unsigned>(quotient_up(fold.pieces.count, kJoinPieces)));
  launch(join_parts<Fold>, grid, dim3(kFoldThreads), 0, stream, fold, lists, parts, opens);
}

template <class T>
SumOfRows<T> sum_of(const void* in, int64_t rows, const ListArrays& lists, const void* factors,
                    const int32_t* places, void* out, const Pieces& pieces) {
  return {static_cast<const T*>(in),
          rows,
          lists.columns,
          static_cast<const SumOf<T>*>(factors),
          places,
          lists.entries,
          static_cast<T*>(out),
          pieces};
}

template <class Row>
void start_lists(const Row* sorted, int64_t pairs, int64_t lists, int64_t* starts, Stream stream) {
  launch(count_below<Row>, blocks_for(lists + 1, kThreads), dim3(kThreads), 0, stream, sorted, pairs, lists,
         starts);
}

template <class Item>
void pick(const void* in, int64_t in_rows, int64_t channels, const int32_t* argmax, int64_t out_rows,
          void* out, Stream stream) {
  const Pieces pieces = pieces_of<Item>(channels, {in, out}, {argmax});
  launch(pick_rows<Item>, blocks_for(out_rows * pieces.count, kThreads), dim3(kThreads), 0, stream,
         static_cast<const Item*>(in), in_rows, argmax, out_rows, pieces, static_cast<Item*>(out));
}

}  // namespace

void look_at_pairs(const int32_t* targets, const int32_t* sources, int64_t pairs, int64_t target_rows,
                   int64_t source_rows, int* found, Stream stream) {
  launch(inspect_pairs, blocks_for(pairs, kThreads), dim3(kThreads), 0, stream, targets, sources, pairs,
         target_rows, source_rows, found);
}

void find_starts(const int32_t* sorted, int64_t pairs, int64_t lists, int64_t* starts, Stream stream) {
  start_lists(sorted, pairs, lists, starts, stream);
}

void find_starts(const uint64_t* sorted, int64_t pairs, int64_t lists, int64_t* starts, Stream stream) {
  start_lists(sorted, pairs, lists, starts, stream);
}

size_t row_sum_bytes(FloatType type, int64_t channels, int64_t entries) {
  size_t bytes = 0;
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    bytes = fold_bytes<SumOfRows<T>>(quotient_up(channels, kPieceChannels<T>), entries);
  });
  return bytes;
}

size_t row_max_bytes(FloatType type, int64_t channels, int64_t entries) {
  size_t bytes = 0;
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    bytes = fold_bytes<MaxOfRows<T>>(quotient_up(channels, kPieceChannels<T>), entries);
  });
  return bytes;
}

void row_sum(FloatType type, const void* in, int64_t in_rows, int64_t channels, const ListArrays& lists,
             const void* factors, const int32_t* places, void* out, void* work, Stream stream) {
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Pieces pieces = pieces_of<T>(channels, {in, out});
    run_fold(sum_of<T>(in, in_rows, lists, factors, places, out, pieces), lists, work, stream);
  });
}

void row_dot(FloatType type, const void* left, const void* right, int64_t right_rows, int64_t channels,
             const ListArrays& lists, const int32_t* places, void* out, Stream stream) {
  if (lists.count == 0) return;
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Pieces pieces = pieces_of<T>(channels, {left, right});
    int width = 1;
    while (width < 32 && width < pieces.count) width *= 2;
    launch(dot_rows<T>, blocks_for(lists.entries, kDotEntries), dim3(kDotEntries), 0, stream,
           static_cast<const T*>(left), static_cast<const T*>(right), right_rows,
           RowLists{lists.starts, lists.columns, lists.count, lists.entries}, places, width, pieces,
           static_cast<SumOf<T>*>(out));
  });
}

void row_max(FloatType type, const void* in, int64_t in_rows, int64_t channels, const ListArrays& lists,
             void* out, int32_t* argmax, void* work, Stream stream) {
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Pieces pieces = pieces_of<T>(channels, {in, out}, {argmax});
    const MaxOfRows<T> fold{static_cast<const T*>(in), in_rows, lists.columns,
                            static_cast<T*>(out),      argmax,  pieces};
    run_fold(fold, lists, work, stream);
  });
}

void row_pick(FloatType type, const void* in, int64_t in_rows, int64_t channels, const int32_t* argmax,
              int64_t out_rows, void* out, Stream stream) {
  if (channels == 0) return;
  if (type == FloatType::float64)
    pick<uint64_t>(in, in_rows, channels, argmax, out_rows, out, stream);
  else if (type == FloatType::float32)
    pick<uint32_t>(in, in_rows, channels, argmax, out_rows, out, stream);
  else
    pick<uint16_t>(in, in_rows, channels, argmax, out_rows, out, stream);
}

void row_put(FloatType type, const void* in, const int32_t* argmax, int64_t in_rows, int64_t channels,
             const ListArrays& back, void* out, void* work, Stream stream) {
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Pieces pieces = pieces_of<T>(channels, {in, out}, {argmax});
    const SumOfChosen<T> fold{sum_of<T>(in, in_rows, back, nullptr, nullptr, out, pieces), argmax};
    run_fold(fold, back, work, stream);
  });
}

}  // namespace hepfeed::device
