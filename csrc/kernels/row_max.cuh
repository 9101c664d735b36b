// Largest numbers of the rows of a matrix that lists name; which rows they are of, and what goes back to
// those; see cpu/row_max.h.
#pragma once

#include <cstdint>

#include "kernels/fold_lists.cuh"
#include "kernels/row_lists.cuh"
#include "kernels/row_pieces.cuh"
#include "kernels/row_sum.cuh"
#include "kernels/sums.cuh"
#include "port.h"

namespace hepfeed::device {

// out[o] = the largest of in[columns[p]] for entries p of list o, NaN above all, and argmax[o] its row, the
// first of those that have it; 0 and -1 for an empty list.  A Fold.
template <class T>
struct MaxOfRows {
  static constexpr int kChannels = kPieceChannels<T>;
  static constexpr int kAtOnce = 4;  // entries whose rows are on their way together

  struct Part {
    SumOf<T> best[kChannels];
    int32_t next[kChannels];  // the row, plus 1, of the best; 0 where there is none
  };
  using Total = Part;

  const T* in;  // (rows, channels)
  int64_t rows;
  const int32_t* columns;  // (entries)
  T* out;                  // (lists, channels)
  int32_t* argmax;         // (lists, channels)
  Pieces pieces;

  __device__ __forceinline__ static void offer(Part& part, int c, SumOf<T> value, int32_t next) {
    if (next > 0 && (part.next[c] == 0 || value > part.best[c] || value != value)) {
      part.best[c] = value;
      part.next[c] = next;
    }
  }

  __device__ __forceinline__ void take(Part& part, int64_t, int64_t first, int64_t last, int piece) const {
    for (int64_t p = first; p < last; p += kAtOnce) {
      RowPiece<T> read[kAtOnce];
      int32_t next[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int32_t column = p + i < last ? columns[p + i] : -1;
        const bool there = static_cast<uint32_t>(column) < rows;
        read[i] = there ? load_piece(in, column, piece, pieces) : RowPiece<T>{};
        next[i] = there ? column + 1 : 0;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
        for (int c = 0; c < kChannels; ++c) offer(part, c, widened(read[i].items[c]), next[i]);
    }
  }

  __device__ __forceinline__ void join(Part& part, const Part& later) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) offer(part, c, later.best[c], later.next[c]);
  }

  __device__ __forceinline__ void put(const Part& part, int64_t list, int piece) const {
    RowPiece<T> row;
    PieceRows<T> numbers;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      row.items[c] = narrowed<T>(part.best[c]);
      numbers.items[c] = part.next[c] - 1;
    }
    store_piece(out, list, piece, pieces, row);
    store_rows<T>(argmax, list, piece, pieces, numbers);
  }
};

// out[i] = sum of in[o] over the rows o in list i with argmax[o] == i, channel by channel: the lists are
// those of the way back.  A Fold, a sum without factors of what it takes.
template <class T>
struct SumOfChosen : SumOfRows<T> {
  using typename SumOfRows<T>::Part;
  static constexpr int kAtOnce = 2;  // entries, of which as much again is read for the rows

  const int32_t* argmax;  // of each number of `in`

  __device__ __forceinline__ void take(Part& part, int64_t list, int64_t first, int64_t last,
                                       int piece) const {
    for (int64_t p = first; p < last; p += kAtOnce) {
      RowPiece<T> read[kAtOnce];
      PieceRows<T> chosen[kAtOnce];
      bool there[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int32_t column = p + i < last ? this->columns[p + i] : -1;
        there[i] = static_cast<uint32_t>(column) < this->rows;
        if (!there[i]) continue;
        read[i] = load_piece(this->in, column, piece, this->pieces);
        chosen[i] = load_rows<T>(argmax, column, piece, this->pieces);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
        for (int c = 0; c < kPieceChannels<T>; ++c)
          if (there[i] && chosen[i].items[c] == list) part.sums[c] += widened(read[i].items[c]);
    }
  }
};

// out[o] = in[argmax[o]] channel by channel, 0 where that is no row.  Items are as large as the numbers:
// nothing is computed with them.  A thread takes a piece.
template <class Item>
__global__ void __launch_bounds__(256) pick_rows(const Item* in, int64_t rows, const int32_t* argmax,
                                                 int64_t out_rows, Pieces pieces, Item* out) {
  const int64_t number = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t o = number / pieces.count;
  if (o >= out_rows) return;
  const int piece = static_cast<int>(number - o * pieces.count);
  const PieceRows<Item> chosen = load_rows<Item>(argmax, o, piece, pieces);
  RowPiece<Item> row{};
#pragma unroll
  for (int c = 0; c < kPieceChannels<Item>; ++c)
    if (static_cast<uint32_t>(chosen.items[c]) < rows)
      row.items[c] =
          in[static_cast<int64_t>(chosen.items[c]) * pieces.channels + piece * kPieceChannels<Item> + c];
  store_piece(out, o, piece, pieces, row);
}

}  // namespace hepfeed::device
