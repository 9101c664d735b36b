// How the variants of convolution.h are launched; for the files that hold their kernels.
#pragma once

#include <stdexcept>

#include "cuda/convolution.h"
#include "kernels/convolution.cuh"
#include "kernels/convolve_rows.cuh"

namespace hepfeed::device {

inline unsigned blocks_of(int64_t items, int64_t in_block) {
  return static_cast<unsigned>((items + in_block - 1) / in_block);
}

template <class T>
void launch_rows(const Convolution<T>& work, Stream stream) {
  if (work.depth > kMostDepth)
    throw std::invalid_argument("this variant takes 8 channels of a group at most");
  const unsigned slices = work.width > kSlice ? kMostSlices : 1;
  const dim3 grid(blocks_of(work.positions, kRowThreads) * blocks_of(work.width, slices * kSlice),
                  work.groups);
  launch(convolve_rows<T>, grid, dim3(kRowThreads, slices), 0, stream, work);
}

template <class Product, int kRows, int kColumns, int kStages, int kBlocks>
void launch_tiles(const Convolution<typename Product::Number>& work, Stream stream) {
  using Tile = ConvolutionTile<Product, kRows, kColumns, kStages, kBlocks>;
  const dim3 grid(blocks_of(work.positions, kRows) * blocks_of(work.width, kColumns), work.groups);
  launch(convolve_tiles<Tile>, grid, Tile::kThreads, Tile::kSharedBytes, stream, work);
}

// Tiles for tensor cores.
template <class T>
void launch_tensor_tiles(const Convolution<T>& work, Variant variant, Stream stream) {
  switch (variant) {
    case Variant::k64x32:
      return launch_tiles<TensorProduct<T, 64, 32, 32, 16>, 64, 32, 3, 4>(work, stream);
    case Variant::k64x64:
      return launch_tiles<TensorProduct<T, 64, 64, 32, 32>, 64, 64, 3, 4>(work, stream);
    case Variant::k128x64:
      return launch_tiles<TensorProduct<T, 128, 64, 32, 32>, 128, 64, 3, 2>(work, stream);
    case Variant::k128x128:
      return launch_tiles<TensorProduct<T, 128, 128, 64, 32>, 128, 128, 2, 2>(work, stream);
    default:
      throw std::invalid_argument("there is no such variant of a convolution by tensor cores");
  }
}

}  // namespace hepfeed::device
