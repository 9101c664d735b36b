// Rows of a matrix in pieces of 16 bytes, of which a thread takes one at a time.
#pragma once

#include <cstdint>

#include "kernels/sums.cuh"
#include "port.h"

namespace hepfeed::device {

// As many channels as 16 bytes hold.
template <class T>
constexpr int kPieceChannels = 16 / static_cast<int>(sizeof(T));

template <class T>
struct alignas(16) RowPiece {
  T items[kPieceChannels<T>];
};

// The row that each channel of a piece is of.
template <class T>
struct alignas(4 * kPieceChannels<T>) PieceRows {
  int32_t items[kPieceChannels<T>];
};

// How rows are divided into pieces.
struct Pieces {
  int32_t channels;
  int32_t count;  // of a row
  bool aligned;   // every piece is whole and begins at a multiple of its size, in all matrices of the kernel

  // Channels of a piece, all but the last of which are whole.
  template <class T>
  __device__ __forceinline__ int there(int piece) const {
    const int left = channels - piece * kPieceChannels<T>;
    return left < kPieceChannels<T> ? left : kPieceChannels<T>;
  }
};

// Reads piece `piece` of row `row`; channels that there are none of are 0.
template <class T>
__device__ __forceinline__ RowPiece<T> load_piece(const T* matrix, int64_t row, int piece,
                                                  const Pieces& pieces) {
  const T* const from = matrix + row * pieces.channels + piece * kPieceChannels<T>;
  if (pieces.aligned) return *reinterpret_cast<const RowPiece<T>*>(from);
  RowPiece<T> read{};
  const int there = pieces.there<T>(piece);
#pragma unroll
  for (int c = 0; c < kPieceChannels<T>; ++c)
    if (c < there) read.items[c] = from[c];
  return read;
}

template <class T>
__device__ __forceinline__ void store_piece(T* matrix, int64_t row, int piece, const Pieces& pieces,
                                            const RowPiece<T>& values) {
  T* const to = matrix + row * pieces.channels + piece * kPieceChannels<T>;
  if (pieces.aligned) {
    *reinterpret_cast<RowPiece<T>*>(to) = values;
    return;
  }
  const int there = pieces.there<T>(piece);
#pragma unroll
  for (int c = 0; c < kPieceChannels<T>; ++c)
    if (c < there) to[c] = values.items[c];
}

// The same for the rows that belong to a piece of a matrix of T; those that there are none of are -1.
template <class T>
__device__ __forceinline__ PieceRows<T> load_rows(const int32_t* matrix, int64_t row, int piece,
                                                  const Pieces& pieces) {
  const int32_t* const from = matrix + row * pieces.channels + piece * kPieceChannels<T>;
  if (pieces.aligned) return *reinterpret_cast<const PieceRows<T>*>(from);
  PieceRows<T> read;
  const int there = pieces.there<T>(piece);
#pragma unroll
  for (int c = 0; c < kPieceChannels<T>; ++c) read.items[c] = c < there ? from[c] : -1;
  return read;
}

template <class T>
__device__ __forceinline__ void store_rows(int32_t* matrix, int64_t row, int piece, const Pieces& pieces,
                                           const PieceRows<T>& rows) {
  int32_t* const to = matrix + row * pieces.channels + piece * kPieceChannels<T>;
  if (pieces.aligned) {
    *reinterpret_cast<PieceRows<T>*>(to) = rows;
    return;
  }
  const int there = pieces.there<T>(piece);
#pragma unroll
  for (int c = 0; c < kPieceChannels<T>; ++c)
    if (c < there) to[c] = rows.items[c];
}

}  // namespace hepfeed::device
