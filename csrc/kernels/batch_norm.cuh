// Batch normalisation of rows (Ioffe and Szegedy, arXiv:1502.03167), perhaps followed by ReLU.
//
// out = (x - mean) * scale + shift with scale = inverse * weight and shift = bias, channel by channel.
//
// Statistics must be known before anything is written, so the floor is to read x twice and write it once, and
// on the way back to read x and the gradient twice and write one.  A thread keeps to one piece of 16 bytes of
// a row, whose constants stay in registers.  Rows are divided into blocks by the sizes alone, and sums of
// blocks are added in a fixed order.
#pragma once

#include <cstdint>

#include "kernels/row_pieces.cuh"
#include "kernels/sums.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int kNormThreads = 256;
constexpr int kNormPieces = 32;  // of a row that a block takes at most, so that it takes eight rows or more

// Which rows and which piece of them a thread takes: first, first + step, .. before last.
struct NormShare {
  int groups, group, piece;
  int64_t first, last;

  __device__ NormShare(const Pieces& pieces, int64_t rows, int64_t block_rows) {
    const int width = pieces.count < kNormPieces ? pieces.count : kNormPieces;
    groups = kNormThreads / width;
    group = static_cast<int>(threadIdx.x) / width;
    piece = static_cast<int>(blockIdx.y) * kNormPieces + static_cast<int>(threadIdx.x) % width;
    const int64_t begin = blockIdx.x * block_rows;
    first = begin + group;
    last = begin + block_rows < rows ? begin + block_rows : rows;
    if (group >= groups || piece >= pieces.count) last = 0;  // a thread too many
  }

  __device__ bool writes(const Pieces& pieces) const { return group == 0 && piece < pieces.count; }
};

// What is done to each channel; arrays of one number for each.
template <class W>
struct Normalisation {
  const W *mean, *inverse;
  const W *weight, *bias;  // null: 1 and 0
  bool relu;               // numbers below 0 become 0; NaN stays NaN
};

// The same for the channels of one piece.
template <class T>
struct PieceNormalisation {
  using W = SumOf<T>;
  W mean[kPieceChannels<T>], scale[kPieceChannels<T>], shift[kPieceChannels<T>];
  bool relu;

  __device__ PieceNormalisation(const Normalisation<W>& how, const Pieces& pieces, int piece)
      : relu(how.relu) {
#pragma unroll
    for (int c = 0; c < kPieceChannels<T>; ++c) {
      const int channel = piece * kPieceChannels<T> + c;
      const bool there = channel < pieces.channels;
      mean[c] = there ? how.mean[channel] : W{0};
      scale[c] = there ? how.inverse[channel] : W{0};
      if (there && how.weight) scale[c] *= how.weight[channel];
      shift[c] = there && how.bias ? how.bias[channel] : W{0};
    }
  }

  // In one fused step wherever it is computed: gradients are cut exactly where the result was.
  __device__ __forceinline__ W of(W x, int c) const { return fma(x - mean[c], scale[c], shift[c]); }

  // The gradient before ReLU.
  __device__ __forceinline__ W passed(W grad, W x, int c) const {
    return !relu || of(x, c) > W{0} ? grad : W{0};
  }
};

// Mean and sum of squared deviations from it, of some rows of a piece.
template <class T>
struct PieceMoments {
  using W = SumOf<T>;
  W count, mean[kPieceChannels<T>], squares[kPieceChannels<T>];

  // Adds those of other rows: Chan, Golub and LeVeque (1979).
  __device__ __forceinline__ void join(const PieceMoments& other) {
    const W all = count + other.count;
    if (other.count == 0) return;
    const W share = other.count / all, weight = count * share;
#pragma unroll
    for (int c = 0; c < kPieceChannels<T>; ++c) {
      const W delta = other.mean[c] - mean[c];
      mean[c] += delta * share;
      squares[c] += other.squares[c] + delta * delta * weight;
    }
    count = all;
  }
};

constexpr int kRowsAtOnce = 4;  // whose deviations are taken from their own mean, so that no digits are lost

// Makes parts (row blocks, 2, pieces x channels of a piece): means, and sums of squared deviations.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    block_moments(const T* x, int64_t rows, int64_t block_rows, Pieces pieces, SumOf<T>* parts) {
  using W = SumOf<T>;
  constexpr int kChannels = kPieceChannels<T>;
  HEPFEED_SHARED(PieceMoments<T>, known, [kNormThreads]);
  const NormShare share(pieces, rows, block_rows);
  PieceMoments<T> own{};
  for (int64_t row = share.first; row < share.last; row += kRowsAtOnce * share.groups) {
    RowPiece<T> read[kRowsAtOnce];
    bool there[kRowsAtOnce];
    PieceMoments<T> some{};
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      there[i] = row + i * share.groups < share.last;
      read[i] = there[i] ? load_piece(x, row + i * share.groups, share.piece, pieces) : RowPiece<T>{};
      if (there[i]) some.count += 1;
    }
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i)
#pragma unroll
      for (int c = 0; c < kChannels; ++c) some.mean[c] += widened(read[i].items[c]);
    const W part = 1 / some.count;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) some.mean[c] *= part;
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i)
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const W deviation = there[i] ? widened(read[i].items[c]) - some.mean[c] : W{0};
        some.squares[c] += deviation * deviation;
      }
    own.join(some);
  }
  known[threadIdx.x] = own;
  const int width = pieces.count < kNormPieces ? pieces.count : kNormPieces;
  for (int step = 1; step < share.groups; step *= 2) {
    __syncthreads();
    if (share.group % (2 * step) == 0 && share.group + step < share.groups)
      known[threadIdx.x].join(known[threadIdx.x + step * width]);
  }
  if (!share.writes(pieces)) return;
  const int64_t padded = static_cast<int64_t>(pieces.count) * kChannels;
  W* const means = parts + 2 * blockIdx.x * padded + share.piece * kChannels;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    means[c] = known[threadIdx.x].mean[c];
    means[padded + c] = known[threadIdx.x].squares[c];
  }
}

// Blocks that join parts are (kJoinChannels, kJoinSlices): 32 bytes of each row of parts, as memory is read.
constexpr int kJoinChannels = 8, kJoinSlices = 32;

// The sum over row blocks of term(block), by all threads of a block, for the channel of each.
template <class Term>
__device__ double joined(int64_t blocks, double (&shared)[kJoinSlices][kJoinChannels], const Term& term) {
  double sum = 0;
#pragma unroll 4
  for (int64_t block = threadIdx.y; block < blocks; block += kJoinSlices) sum += term(block);
  __syncthreads();
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = kJoinSlices / 2; half > 0; half /= 2) {
    if (threadIdx.y < half) shared[threadIdx.y][threadIdx.x] += shared[threadIdx.y + half][threadIdx.x];
    __syncthreads();
  }
  return shared[0][threadIdx.x];
}

// Makes of the parts of block_moments() the mean, 1 / sqrt(variance + eps) and the unbiased variance of each
// channel.  The mean comes first, as differences from it lose no digits.
template <class W>
__global__ void __launch_bounds__(kJoinChannels* kJoinSlices)
    join_moments(const W* parts, int64_t blocks, int64_t block_rows, int64_t rows, int channels, int padded,
                 double eps, W* mean, W* inverse, W* variance) {
  HEPFEED_SHARED(double, shared, [kJoinSlices][kJoinChannels]);
  const int channel = static_cast<int>(blockIdx.x) * kJoinChannels + static_cast<int>(threadIdx.x);
  const int64_t at = channel < channels ? channel : channels - 1;
  const auto count = [=](int64_t block) {
    return static_cast<double>(block < blocks - 1 ? block_rows : rows - block * block_rows);
  };
  const double centre = joined(blocks, shared,
                               [=](int64_t block) {
                                 return count(block) * static_cast<double>(parts[2 * block * padded + at]);
                               }) /
                        static_cast<double>(rows);
  const double squares = joined(blocks, shared, [=](int64_t block) {
    const double delta = static_cast<double>(parts[2 * block * padded + at]) - centre;
    return static_cast<double>(parts[(2 * block + 1) * padded + at]) + count(block) * delta * delta;
  });
  if (threadIdx.y > 0 || channel >= channels) return;
  mean[channel] = static_cast<W>(centre);
  inverse[channel] = static_cast<W>(1 / sqrt(squares / static_cast<double>(rows) + eps));
  variance[channel] = static_cast<W>(squares / static_cast<double>(rows - 1));
}

// The same of given statistics.
template <class W>
__global__ void __launch_bounds__(256)
    given_moments(const W* running_mean, const W* running_variance, int channels, double eps, W* mean,
                  W* inverse, W* variance) {
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  mean[channel] = running_mean[channel];
  inverse[channel] = static_cast<W>(1 / sqrt(static_cast<double>(running_variance[channel]) + eps));
  variance[channel] = running_variance[channel];
}

template <class T>
__global__ void __launch_bounds__(kNormThreads)
    normalise(const T* x, int64_t rows, int64_t block_rows, Pieces pieces,
              Normalisation<SumOf<T>> normalisation, T* out) {
  const NormShare share(pieces, rows, block_rows);
  const PieceNormalisation<T> how(normalisation, pieces, share.piece);
#pragma unroll 4
  for (int64_t row = share.first; row < share.last; row += share.groups) {
    RowPiece<T> piece = load_piece(x, row, share.piece, pieces);
#pragma unroll
    for (int c = 0; c < kPieceChannels<T>; ++c) {
      const SumOf<T> value = how.of(widened(piece.items[c]), c);
      piece.items[c] = narrowed<T>(how.relu && value < 0 ? SumOf<T>{0} : value);
    }
    store_piece(out, row, share.piece, pieces, piece);
  }
}

template <class T>
struct PieceGradients {
  SumOf<T> sums[kPieceChannels<T>], products[kPieceChannels<T>];
};

// Makes parts as block_moments() does: sums of g and of g * (x - mean), where g is `grad`, and 0 where ReLU
// cut.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    block_gradients(const T* grad, const T* x, int64_t rows, int64_t block_rows, Pieces pieces,
                    Normalisation<SumOf<T>> normalisation, SumOf<T>* parts) {
  constexpr int kChannels = kPieceChannels<T>;
  HEPFEED_SHARED(PieceGradients<T>, known, [kNormThreads]);
  const NormShare share(pieces, rows, block_rows);
  const PieceNormalisation<T> how(normalisation, pieces, share.piece);
  PieceGradients<T> own{};
#pragma unroll 2
  for (int64_t row = share.first; row < share.last; row += share.groups) {
    const RowPiece<T> of_out = load_piece(grad, row, share.piece, pieces);
    const RowPiece<T> of_x = load_piece(x, row, share.piece, pieces);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const SumOf<T> value = widened(of_x.items[c]), g = how.passed(widened(of_out.items[c]), value, c);
      own.sums[c] += g;
      own.products[c] += g * (value - how.mean[c]);
    }
  }
  known[threadIdx.x] = own;
  const int width = pieces.count < kNormPieces ? pieces.count : kNormPieces;
  for (int step = 1; step < share.groups; step *= 2) {
    __syncthreads();
    if (share.group % (2 * step) == 0 && share.group + step < share.groups) {
      const PieceGradients<T> other = known[threadIdx.x + step * width];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        known[threadIdx.x].sums[c] += other.sums[c];
        known[threadIdx.x].products[c] += other.products[c];
      }
    }
  }
  if (!share.writes(pieces)) return;
  const int64_t padded = static_cast<int64_t>(pieces.count) * kChannels;
  SumOf<T>* const sums = parts + 2 * blockIdx.x * padded + share.piece * kChannels;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    sums[c] = known[threadIdx.x].sums[c];
    sums[padded + c] = known[threadIdx.x].products[c];
  }
}

// Of each channel, what the parts of block_gradients() come to.
template <class W>
struct ChannelGradients {
  W *weight, *bias;  // gradients of these
  W *offset,
      *slope;  // what is subtracted from the gradient of x, and how much more for each unit of x - mean
};

// `of_batch` says that the statistics are those of the rows, and so depend on them.
template <class W>
__global__ void __launch_bounds__(kJoinChannels* kJoinSlices)
    join_gradients(const W* parts, int64_t blocks, int64_t rows, int channels, int padded,
                   Normalisation<W> normalisation, bool of_batch, ChannelGradients<W> out) {
  HEPFEED_SHARED(double, shared, [kJoinSlices][kJoinChannels]);
  const int channel = static_cast<int>(blockIdx.x) * kJoinChannels + static_cast<int>(threadIdx.x);
  const int64_t at = channel < channels ? channel : channels - 1;
  const double sum = joined(
      blocks, shared, [=](int64_t block) { return static_cast<double>(parts[2 * block * padded + at]); });
  const double product = joined(blocks, shared, [=](int64_t block) {
    return static_cast<double>(parts[(2 * block + 1) * padded + at]);
  });
  if (threadIdx.y > 0 || channel >= channels) return;
  const double inverse = static_cast<double>(normalisation.inverse[channel]);
  const double scale =
      normalisation.weight ? inverse * static_cast<double>(normalisation.weight[channel]) : inverse;
  const double share = scale / static_cast<double>(rows);
  out.bias[channel] = static_cast<W>(sum);
  out.weight[channel] = static_cast<W>(product * inverse);
  out.offset[channel] = of_batch ? static_cast<W>(share * sum) : W{0};  // also where the sum is not finite
  out.slope[channel] = of_batch ? static_cast<W>(share * inverse * inverse * product) : W{0};
}

// out = g * scale - offset - (x - mean) * slope, with the g of block_gradients().
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    normalise_back(const T* grad, const T* x, int64_t rows, int64_t block_rows, Pieces pieces,
                   Normalisation<SumOf<T>> normalisation, const SumOf<T>* offsets, const SumOf<T>* slopes,
                   T* out) {
  using W = SumOf<T>;
  const NormShare share(pieces, rows, block_rows);
  const PieceNormalisation<T> how(normalisation, pieces, share.piece);
  W offset[kPieceChannels<T>], slope[kPieceChannels<T>];
#pragma unroll
  for (int c = 0; c < kPieceChannels<T>; ++c) {
    const int channel = share.piece * kPieceChannels<T> + c;
    offset[c] = channel < pieces.channels ? offsets[channel] : W{0};
    slope[c] = channel < pieces.channels ? slopes[channel] : W{0};
  }
#pragma unroll 2
  for (int64_t row = share.first; row < share.last; row += share.groups) {
    const RowPiece<T> of_out = load_piece(grad, row, share.piece, pieces);
    RowPiece<T> piece = load_piece(x, row, share.piece, pieces);
#pragma unroll
    for (int c = 0; c < kPieceChannels<T>; ++c) {
      const W value = widened(piece.items[c]), g = how.passed(widened(of_out.items[c]), value, c);
      piece.items[c] = narrowed<T>(g * how.scale[c] - offset[c] - (value - how.mean[c]) * slope[c]);
    }
    store_piece(out, row, share.piece, pieces, piece);
  }
}

}  // namespace hepfeed::device
