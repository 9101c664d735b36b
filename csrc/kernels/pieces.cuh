// Numbers that lie together in 16 bytes, which a thread reads and writes at once.
#pragma once

#include <cstdint>

#include "port.h"

namespace hepfeed::device {

constexpr int kPieceBytes = 16;

template <class T>
struct __align__(16) Piece {
  T items[kPieceBytes / sizeof(T)];
};

// Writes the first `items` numbers of a piece, or all of it where it has no more: at once where it is whole
// and goes to a multiple of its size.
template <class T>
__device__ __forceinline__ void store_piece(T* to, const Piece<T>& piece, int items) {
  constexpr int kItems = kPieceBytes / sizeof(T);
  if (items >= kItems && reinterpret_cast<uintptr_t>(to) % kPieceBytes == 0) {
    *reinterpret_cast<Piece<T>*>(to) = piece;
    return;
  }
#pragma unroll
  for (int i = 0; i < kItems; ++i)
    if (i < items) to[i] = piece.items[i];
}

}  // namespace hepfeed::device
