#include <algorithm>

#include "cuda/batch_norm.h"
#include "cuda/row_shape.h"
#include "kernels/batch_norm.cuh"

namespace hepfeed::device {
namespace {

// Rows of a thread, so that what is done once a block is little, and blocks, of whose sums the last kernel
// adds each: on the largest cards four times as many as there are processors.
constexpr int64_t kRowsOfThread = 16, kMostBlocks = 512;

// How rows and pieces are divided between the blocks of a kernel.
struct NormGrid {
  int64_t block_rows;
  dim3 blocks;
};

NormGrid norm_grid(int64_t rows, const Pieces& pieces, int64_t most_blocks) {
  const int64_t groups = kNormThreads / std::min(pieces.count, kNormPieces);
  const int64_t block_rows = std::max(groups * kRowsOfThread, quotient_up(rows, most_blocks));
  return {block_rows, dim3(static_cast<unsigned>(quotient_up(rows, block_rows)),
                           static_cast<unsigned>(quotient_up(pieces.count, kNormPieces)))};
}

// Where each row is written as well, blocks may be as many as there are rows for.
NormGrid writing_grid(int64_t rows, const Pieces& pieces) { return norm_grid(rows, pieces, kMaxGridX); }

template <class W>
Normalisation<W> normalisation(const ChannelArrays& how) {
  return {static_cast<const W*>(how.mean), static_cast<const W*>(how.inverse),
          static_cast<const W*>(how.weight), static_cast<const W*>(how.bias), how.relu};
}

template <class T>
int padded_channels(const Pieces& pieces) {
  return pieces.count * kPieceChannels<T>;
}

const dim3 kJoinBlock(kJoinChannels, kJoinSlices);

}  // namespace

size_t batch_norm_bytes(FloatType type, int64_t rows, int64_t channels) {
  size_t bytes = 0;
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    if (channels == 0) return;
    const Pieces pieces = pieces_of<T>(channels, {});
    bytes = size_t{2} * norm_grid(rows, pieces, kMostBlocks).blocks.x * padded_channels<T>(pieces) *
            sizeof(SumOf<T>);
  });
  return bytes;
}

void batch_statistics(FloatType type, const void* x, int64_t rows, int64_t channels, double eps, void* mean,
                      void* inverse, void* variance, void* work, Stream stream) {
  if (channels == 0) return;
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    using W = SumOf<T>;
    const Pieces pieces = pieces_of<T>(channels, {x});
    const NormGrid grid = norm_grid(rows, pieces, kMostBlocks);
    auto* const parts = static_cast<W*>(work);
    launch(block_moments<T>, grid.blocks, dim3(kNormThreads), 0, stream, static_cast<const T*>(x), rows,
           grid.block_rows, pieces, parts);
    launch(join_moments<W>, blocks_for(channels, kJoinChannels), kJoinBlock, 0, stream, parts, grid.blocks.x,
           grid.block_rows, rows, pieces.channels, padded_channels<T>(pieces), eps, static_cast<W*>(mean),
           static_cast<W*>(inverse), static_cast<W*>(variance));
  });
}

void given_statistics(FloatType type, const void* running_mean, const void* running_variance,
                      int64_t channels, double eps, void* mean, void* inverse, void* variance,
                      Stream stream) {
  const auto run = [&](auto zero) {
    using W = decltype(zero);
    launch(given_moments<W>, blocks_for(channels, 256), dim3(256), 0, stream,
           static_cast<const W*>(running_mean), static_cast<const W*>(running_variance),
           static_cast<int>(channels), eps, static_cast<W*>(mean), static_cast<W*>(inverse),
           static_cast<W*>(variance));
  };
  if (type == FloatType::float64)
    run(double{});
  else
    run(float{});
}

void batch_norm(FloatType type, const void* x, int64_t rows, int64_t channels, const ChannelArrays& how,
                void* out, Stream stream) {
  if (channels == 0) return;
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Pieces pieces = pieces_of<T>(channels, {x, out});
    const NormGrid grid = writing_grid(rows, pieces);
    launch(normalise<T>, grid.blocks, dim3(kNormThreads), 0, stream, static_cast<const T*>(x), rows,
           grid.block_rows, pieces, normalisation<SumOf<T>>(how), static_cast<T*>(out));
  });
}

void batch_norm_grad(FloatType type, const void* grad, const void* x, int64_t rows, int64_t channels,
                     const ChannelArrays& how, bool of_batch, void* out, void* weight_grad, void* bias_grad,
                     void* slopes, void* work, Stream stream) {
  if (channels == 0) return;
  with_float_type(type, [&](auto zero) {
    using T = decltype(zero);
    using W = SumOf<T>;
    const Pieces pieces = pieces_of<T>(channels, {grad, x, out});
    const Normalisation<W> channel = normalisation<W>(how);
    const auto *g = static_cast<const T*>(grad), *values = static_cast<const T*>(x);
    auto *const parts = static_cast<W*>(work), *const offset = static_cast<W*>(slopes);
    W* const slope = offset + channels;
    const NormGrid grid = norm_grid(rows, pieces, kMostBlocks), writing = writing_grid(rows, pieces);
    launch(block_gradients<T>, grid.blocks, dim3(kNormThreads), 0, stream, g, values, rows, grid.block_rows,
           pieces, channel, parts);
    const ChannelGradients<W> made{static_cast<W*>(weight_grad), static_cast<W*>(bias_grad), offset, slope};
    launch(join_gradients<W>, blocks_for(channels, kJoinChannels), kJoinBlock, 0, stream, parts,
           grid.blocks.x, rows, pieces.channels, padded_channels<T>(pieces), channel, of_batch, made);
    launch(normalise_back<T>, writing.blocks, dim3(kNormThreads), 0, stream, g, values, rows,
           writing.block_rows, pieces, channel, offset, slope, static_cast<T*>(out));
  });
}

}  // namespace hepfeed::device
