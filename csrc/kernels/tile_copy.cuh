// Copies of rows of features and of the weight to shared memory, a chunk at a time.
//
// The terms of a block's sums are numbers (tap, channel), in that order; 16 bytes of them are a piece, and
// kChunkPieces pieces are a chunk, which may hold several taps where there are few channels.  A stage of
// shared memory holds a chunk of each row of features and then of each column of the weight.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/convolution.h"
#include "kernels/pieces.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int kChunkPieces = 8, kChunkBytes = kPieceBytes * kChunkPieces;

// Where a piece of a row lies in a stage.  Pieces of one number of eight rows lie in different banks, so that
// ldmatrix and 16-byte reads of rows that follow each other are free of conflicts.  Eight rows further on it
// is eight chunks further on.
__device__ __forceinline__ int piece_offset(int row, int piece) {
  return row * kChunkBytes + (piece ^ (row % kChunkPieces)) * kPieceBytes;
}

// From the offset of piece p that of piece (p xor by) of the same row.
__device__ __forceinline__ int other_piece(int offset, int by) { return offset ^ (by * kPieceBytes); }

// The copies of one thread: the same piece of each chunk, of some rows and columns.  T as in Convolution,
// with rows of whole pieces.
template <class T, int kRows, int kColumns, int kThreads>
class ChunkCopier {
 public:
  static constexpr int kStageBytes = (kRows + kColumns) * kChunkBytes;

  // For positions from first_position on and columns from first_column on of a group.
  __device__ __forceinline__ ChunkCopier(const Convolution<T>& work, int32_t first_position,
                                         int32_t first_column, int32_t group)
      : work_(work),
        row_(threadIdx.x / kChunkPieces),
        piece_(threadIdx.x % kChunkPieces),
        parts_(work.depth / kPieceItems),
        step_ordinals_(kChunkPieces / parts_),
        step_parts_(kChunkPieces % parts_),
        first_position_(first_position),
        columns_(work.width - first_column - row_),
        features_(work.features + static_cast<int64_t>(group) * work.depth),
        weight_(work.weight +
                (static_cast<int64_t>(group) * work.width + first_column + row_) * work.taps * work.depth) {}

  // Begins with the first of `count` taps that are listed in shared memory; returns the number of their
  // chunks.
  __device__ __forceinline__ int begin(const int32_t* list, int count) {
    list_ = list;
    count_ = count;
    ordinal_ = piece_ / parts_;
    part_ = piece_ % parts_;
    fetch();
    return (count * parts_ + kChunkPieces - 1) / kChunkPieces;
  }

  // Starts the copies of the next chunk; what is beyond the taps, rows or columns is zero.
  __device__ __forceinline__ void copy(unsigned char* stage) {
    const int64_t channel = static_cast<int64_t>(part_) * kPieceItems;
    const int64_t in_channels = static_cast<int64_t>(work_.groups) * work_.depth;
    unsigned char* to = stage + piece_offset(row_, piece_);
#pragma unroll
    for (int i = 0; i < kRowCopies; ++i, to += kPassRows * kChunkBytes)
      copy_async_16(to, features_ + (in_rows_[i] * in_channels + channel), in_rows_[i] >= 0);
    const bool has_tap = ordinal_ < count_;
    const T* from = weight_ + (static_cast<int64_t>(tap_) * work_.depth + channel);
    const int64_t pass_items = static_cast<int64_t>(work_.taps) * work_.depth * kPassRows;
#pragma unroll
    for (int i = 0; i < kColumnCopies; ++i, to += kPassRows * kChunkBytes, from += pass_items)
      copy_async_16(to, from, has_tap && i * kPassRows < columns_);
    ordinal_ += step_ordinals_;
    part_ += step_parts_;
    if (part_ >= parts_) {
      part_ -= parts_;
      ++ordinal_;
    }
    fetch();
  }

 private:
  static constexpr int kPieceItems = kPieceBytes / sizeof(T);
  static constexpr int kPassRows = kThreads / kChunkPieces;
  static constexpr int kRowCopies = kRows / kPassRows, kColumnCopies = kColumns / kPassRows;
  static_assert(kRows % kPassRows == 0 && kColumns % kPassRows == 0, "every thread has as many copies");
  static_assert(kPassRows % kChunkPieces == 0, "a thread has one place in all its rows");

  // Reads the rows of the next chunk, so that no copy waits for them.
  __device__ __forceinline__ void fetch() {
    const bool has_tap = ordinal_ < count_;
    if (has_tap) tap_ = list_[ordinal_];
    const int32_t* const rows = work_.table + static_cast<int64_t>(tap_) * work_.positions + first_position_;
#pragma unroll
    for (int i = 0; i < kRowCopies; ++i) {
      const int row = row_ + i * kPassRows;
      in_rows_[i] = has_tap && first_position_ + row < work_.positions ? rows[row] : -1;
    }
  }

  const Convolution<T>& work_;
  const int row_, piece_;
  const int parts_;                       // pieces of one tap
  const int step_ordinals_, step_parts_;  // from a chunk to the next
  const int32_t first_position_;
  const int32_t columns_;  // from that of the first copy on
  const T* const features_;
  const T* const weight_;
  const int32_t* list_ = nullptr;
  int count_ = 0;
  int ordinal_ = 0, part_ = 0;  // of the next piece: which of the listed taps, and which of its parts
  int32_t tap_ = 0;
  int32_t in_rows_[kRowCopies];
};

}  // namespace hepfeed::device
