// What launchers of kernels on rows compute before they start one; for .cu files.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>

#include "kernels/row_pieces.cuh"
#include "port.h"

namespace hepfeed::device {

inline int64_t quotient_up(int64_t number, int64_t of_one) { return (number + of_one - 1) / of_one; }

inline dim3 blocks_for(int64_t number, int64_t of_one) {
  return dim3(static_cast<unsigned>(quotient_up(number, of_one)));
}

// How rows are divided into pieces of 16 bytes; `aligned` is set where these can be read at once from all of
// the matrices, of which some may be of int32 rows.
template <class T>
Pieces pieces_of(int64_t channels, std::initializer_list<const void*> matrices,
                 std::initializer_list<const int32_t*> row_matrices = {}) {
  constexpr int kChannels = kPieceChannels<T>;
  if (channels > std::numeric_limits<int32_t>::max() - kChannels)
    throw std::invalid_argument("a matrix has less than 2^31 channels");
  const auto lies_at = [](const void* matrix, size_t bytes) {
    return reinterpret_cast<uintptr_t>(matrix) % bytes == 0;
  };
  bool aligned = channels % kChannels == 0;
  for (const void* matrix : matrices) aligned = aligned && lies_at(matrix, sizeof(RowPiece<T>));
  for (const void* matrix : row_matrices) aligned = aligned && lies_at(matrix, sizeof(PieceRows<T>));
  return {static_cast<int32_t>(channels), static_cast<int32_t>(quotient_up(channels, kChannels)), aligned};
}

}  // namespace hepfeed::device
