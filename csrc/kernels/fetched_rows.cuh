// Channels of the rows that pairs name, on their way to shared memory.
#pragma once

#include <cstdint>

#include "port.h"

namespace hepfeed::device {

// One side of the pairs.
template <class T>
struct PairedRows {
  const T* values;         // (rows, stride)
  const int32_t* numbers;  // of the row of each pair
  int64_t rows;
  int32_t stride;    // channels of all groups
  int32_t channels;  // of one group
  bool aligned;      // groups of every row begin at multiples of 16 bytes, and end there
};

// Copies `Width` channels of `Depth` pairs to shared memory, `Stride` items from one pair to the next.
//
// A block of `Threads` takes part; each copies pieces of 16 bytes, those of one row side by side.  The
// numbers of rows are read one step before the rows, so that the wait for them passes while others multiply.
// What lies outside of the rows, of the channels or of the pairs is 0.
template <class T, int Depth, int Width, int Stride, int Threads>
class RowFetcher {
 public:
  // Of a tile that begins at `channel` of `group`.
  __device__ RowFetcher(const PairedRows<T>& rows, int group, int channel)
      : values_(rows.values + static_cast<int64_t>(group) * rows.channels + channel),
        numbers_(rows.numbers),
        rows_(static_cast<uint32_t>(rows.rows)),
        stride_(rows.stride),
        channels_(rows.channels - channel),
        aligned_(rows.aligned) {}

  // Reads the numbers of the rows of pairs first .. first + Depth - 1, as far as they are before `last`.
  __device__ void look_up(int64_t first, int64_t last) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int64_t pair = first + piece(i) / kAcross;
      row_[i] = piece(i) < kPieces && pair < last ? numbers_[pair] : -1;
    }
  }

  // Begins to copy those rows; the caller commits and waits.
  __device__ void copy(T* shared) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (piece(i) >= kPieces) break;
      const int channel = piece(i) % kAcross * kPiece;
      T* const to = shared + piece(i) / kAcross * Stride + channel;
      const bool there = static_cast<uint32_t>(row_[i]) < rows_;
      const T* const from = values_ + (there ? static_cast<int64_t>(row_[i]) * stride_ + channel : 0);
      if (aligned_) {
        const bool inside = there && channel < channels_;
        copy_async_16(to, inside ? from : values_, inside);
      } else {
#pragma unroll
        for (int c = 0; c < kPiece; ++c) to[c] = there && channel + c < channels_ ? from[c] : T{};
      }
    }
  }

 private:
  static constexpr int kPiece = 16 / sizeof(T), kAcross = Width / kPiece, kPieces = Depth * kAcross;
  static constexpr int kEach = (kPieces + Threads - 1) / Threads;

  __device__ static int piece(int i) { return static_cast<int>(threadIdx.x) + i * Threads; }

  const T* values_;
  const int32_t* numbers_;
  uint32_t rows_;
  int32_t stride_, channels_;
  bool aligned_;
  int32_t row_[kEach];
};

}  // namespace hepfeed::device
