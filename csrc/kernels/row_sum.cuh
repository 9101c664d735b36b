// Sums of the rows of a matrix that lists name, and products of rows; see cpu/row_sum.h.
#pragma once

#include <cstdint>

#include "kernels/fold_lists.cuh"
#include "kernels/row_lists.cuh"
#include "kernels/row_pieces.cuh"
#include "kernels/sums.cuh"
#include "port.h"

namespace hepfeed::device {

// out[o] = sum over entries p of list o of factors[places[p]] * in[columns[p]], or without factors where they
// are null.  A Fold.
template <class T>
struct SumOfRows {
  static constexpr int kChannels = kPieceChannels<T>;
  static constexpr int kAtOnce = 4;  // entries whose rows are on their way together

  struct Part {
    SumOf<T> sums[kChannels];
  };
  struct Total {  // in float64, as the parts of a list may be many
    double sums[kChannels];
  };

  const T* in;  // (rows, channels)
  int64_t rows;
  const int32_t* columns;  // (entries)
  const SumOf<T>* factors;
  const int32_t* places;  // (entries)
  int64_t entries;
  T* out;  // (lists, channels)
  Pieces pieces;

  __device__ __forceinline__ void take(Part& part, int64_t, int64_t first, int64_t last, int piece) const {
    for (int64_t p = first; p < last; p += kAtOnce) {
      RowPiece<T> read[kAtOnce];
      SumOf<T> factor[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int32_t column = p + i < last ? columns[p + i] : -1;
        bool there = static_cast<uint32_t>(column) < rows;
        factor[i] = 1;
        if (factors && there) {
          const int32_t place = places[p + i];
          there = static_cast<uint32_t>(place) < entries;
          if (there) factor[i] = factors[place];
        }
        read[i] = there ? load_piece(in, column, piece, pieces) : RowPiece<T>{};
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
        for (int c = 0; c < kChannels; ++c) part.sums[c] += factor[i] * widened(read[i].items[c]);
    }
  }

  template <class From>
  __device__ __forceinline__ void join(Total& total, const From& later) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) total.sums[c] += later.sums[c];
  }

  template <class From>
  __device__ __forceinline__ void put(const From& known, int64_t list, int piece) const {
    RowPiece<T> row;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) row.items[c] = narrowed<T>(static_cast<SumOf<T>>(known.sums[c]));
    store_piece(out, list, piece, pieces, row);
  }
};

constexpr int kDotEntries = 256;  // of a block, and its threads

// out[places[p]] = left[o] . right[columns[p]] for the entries p of each list o.
//
// `width` lanes of a warp, a power of 2, take an entry.  Which list it is of is searched by a thread for each
// entry, ahead: the entries of lists differ in number, and those of blocks do not.
template <class T>
__global__ void __launch_bounds__(kDotEntries)
    dot_rows(const T* left, const T* right, int64_t right_rows, RowLists lists, const int32_t* places,
             int width, Pieces pieces, SumOf<T>* out) {
  HEPFEED_SHARED(int64_t, list_of, [kDotEntries]);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kDotEntries;
  if (begin + threadIdx.x < lists.entries) list_of[threadIdx.x] = list_of_entry(lists, begin + threadIdx.x);
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % width;
  for (int entry = static_cast<int>(threadIdx.x) / width; entry < kDotEntries; entry += kDotEntries / width) {
    const int64_t p = begin + entry;
    const int32_t column = p < lists.entries ? lists.columns[p] : -1;
    SumOf<T> sum = 0;
    if (static_cast<uint32_t>(column) < right_rows) {
      for (int piece = lane; piece < pieces.count; piece += width) {
        const RowPiece<T> a = load_piece(left, list_of[entry], piece, pieces);
        const RowPiece<T> b = load_piece(right, column, piece, pieces);
#pragma unroll
        for (int c = 0; c < kPieceChannels<T>; ++c) sum += widened(a.items[c]) * widened(b.items[c]);
      }
    }
    for (int apart = width / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
    if (lane == 0 && p < lists.entries) {
      const int32_t place = places[p];
      if (static_cast<uint32_t>(place) < lists.entries) out[place] = sum;
    }
  }
}

}  // namespace hepfeed::device
