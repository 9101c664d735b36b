// The gradient of the weight of a sparse convolution: dW[co, k, ci] = the sum over the pairs p of tap k of
// grad[out[p], co] in[in[p], ci].
//
// Taps differ much in their number of pairs, so that pairs are cut into pieces of `chunk` at most: the work
// items.  A block makes the sums of one item for one tile of channels, all in registers, and writes them to a
// place of their own; then the sums of each tap's items are added in their order.  There are no atomic sums:
// results depend on the pairs, the chunk and the tile alone.
//
// An item of n pairs reads n rows of both sides, n (l + r) b bytes for l and r channels of b bytes, and does
// 2 n l r operations: 32 a byte at 64 bfloat16 channels, fewer than tensor cores could do with rows from
// memory.  Thus the loop is about rows: they come in pieces of 16 bytes, two steps ahead of their use.  The
// sums of an item, written and read once, are 8 l r bytes: an eighth of its rows for 1,000 such pairs.
#pragma once

#include <cstdint>

#include "kernels/fetched_rows.cuh"
#include "kernels/sums.cuh"
#include "port.h"

namespace hepfeed::device {

// Pairs begin .. end - 1 of one tap.
struct WorkItem {
  int64_t begin, end;
};

// Cuts the pairs of each tap into work items, `items` of which there is room for: (pairs / chunk + taps) are
// enough.  Those of tap k are first_item[k] .. first_item[k + 1] - 1; what is behind the last is empty.
// offsets (taps + 1), first_item (taps + 1).  Run by one block of kItemThreads.
constexpr int kItemThreads = 256;
__global__ void __launch_bounds__(kItemThreads)
    make_work_items_kernel(const int64_t* offsets, int32_t taps, int64_t chunk, int64_t items,
                           int64_t* first_item, WorkItem* made) {
  HEPFEED_SHARED(int64_t, counts, [kItemThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  int64_t before = 0;
  for (int32_t tap = 0; tap < taps; tap += kItemThreads) {
    const bool there = tap + thread < taps;
    counts[thread] =
        there ? (offsets[tap + thread + 1] - offsets[tap + thread] + chunk - 1) / chunk : int64_t{0};
    __syncthreads();
    for (int step = 1; step < kItemThreads; step *= 2) {  // inclusive sums
      const int64_t more = thread >= step ? counts[thread - step] : 0;
      __syncthreads();
      counts[thread] += more;
      __syncthreads();
    }
    if (there) first_item[tap + thread + 1] = before + counts[thread];
    before += counts[kItemThreads - 1];
    __syncthreads();
  }
  if (thread == 0) first_item[0] = 0;
  __syncthreads();
  for (int64_t item = thread; item < items; item += kItemThreads) {
    WorkItem work{0, 0};
    if (item < before) {
      int32_t low = 0, high = taps - 1;  // the tap is the first whose items end behind this one
      while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (first_item[middle + 1] > item)
          high = middle;
        else
          low = middle + 1;
      }
      work.begin = offsets[low] + (item - first_item[low]) * chunk;
      work.end = work.begin + chunk < offsets[low + 1] ? work.begin + chunk : offsets[low + 1];
    }
    made[item] = work;
  }
}

// Buffers of rows: one is multiplied while two are filled.
constexpr int kStages = 3;

// Threads that are to find place in a multiprocessor at least, so that each may have 128 registers.
constexpr int kProductThreads = 512;

// Bytes of shared memory of a block.
template <class Product>
constexpr int shared_bytes() {
  return kStages * Product::kDepth * (Product::kLeftStride + Product::kRightStride) *
         static_cast<int>(sizeof(typename Product::Number));
}

// Tiles of all groups' sums: (groups, down, across).
struct Tiles {
  int32_t groups, down, across;
  __host__ __device__ int32_t count() const { return groups * down * across; }
};

// Makes the sums of one item for one tile: sums (items, tiles, rows, columns of a tile).  The blocks of an
// item come one after another, so that those which read the same rows do so at the same time.
template <class Product>
__global__ void __launch_bounds__(Product::kThreads, kProductThreads / Product::kThreads)
    outer_products_kernel(PairedRows<typename Product::Number> left,
                          PairedRows<typename Product::Number> right, const WorkItem* items, Tiles tiles,
                          typename Product::Sum* sums) {
  using Number = typename Product::Number;
  constexpr int kDepth = Product::kDepth, kLeft = kDepth * Product::kLeftStride,
                kBuffer = kLeft + kDepth * Product::kRightStride;
  HEPFEED_DYNAMIC_SHARED(Number, shared);
  const auto tile = static_cast<int32_t>(blockIdx.x % static_cast<uint32_t>(tiles.count()));
  const WorkItem item = items[blockIdx.x / static_cast<uint32_t>(tiles.count())];
  const auto steps = static_cast<int>((item.end - item.begin + kDepth - 1) / kDepth);
  if (steps == 0) return;
  const int group = tile / (tiles.down * tiles.across);
  RowFetcher<Number, kDepth, Product::kRows, Product::kLeftStride, Product::kThreads> left_rows(
      left, group, tile / tiles.across % tiles.down * Product::kRows);
  RowFetcher<Number, kDepth, Product::kColumns, Product::kRightStride, Product::kThreads> right_rows(
      right, group, tile % tiles.across * Product::kColumns);
  const auto look_up = [&](int step) {
    const int64_t first = item.begin + static_cast<int64_t>(step) * kDepth;
    left_rows.look_up(first, item.end);
    right_rows.look_up(first, item.end);
  };
  const auto copy = [&](int step) {
    if (step < steps) {
      Number* const buffer = shared + step % kStages * kBuffer;
      left_rows.copy(buffer);
      right_rows.copy(buffer + kLeft);
    }
    copy_async_commit();  // also where there is nothing, so that the number of groups is that of steps
  };
  Product product;
  look_up(0);
#pragma unroll 1  // the copies are a large part of the code
  for (int step = 0; step < kStages - 1; ++step) {
    copy(step);
    look_up(step + 1);
  }
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // this step's rows are there, and all have done with those of the step before
    copy(step + kStages - 1);
    look_up(step + kStages);
    const Number* const buffer = shared + step % kStages * kBuffer;
    product.add(buffer, buffer + kLeft);
  }
  product.store(sums + static_cast<int64_t>(blockIdx.x) * Product::kRows * Product::kColumns);
}

// Adds the sums of the items of each tap and writes the gradient (C_out, taps, C_in / groups).  `turned` says
// that the left side was the input.  Blocks are (places, slices) of kSumThreads in all: slice s adds the
// items s, s + slices, ... for neighbouring places of a matrix, and then the slices are added in order. There
// are less than 2^31 places.
constexpr int kSumThreads = 256;
template <class Sum, class Number>
__global__ void __launch_bounds__(kSumThreads)
    add_items_kernel(const Sum* sums, const int64_t* first_item, Tiles tiles, uint32_t rows, uint32_t columns,
                     uint32_t left_channels, uint32_t right_channels, bool turned, Number* gradient) {
  HEPFEED_SHARED(Sum, slices, [kSumThreads]);
  const uint32_t tap = blockIdx.y, matrix = left_channels * right_channels;
  const uint32_t place = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t group = place / matrix, left = place % matrix / right_channels,
                 right = place % right_channels;
  const bool there = group < static_cast<uint32_t>(tiles.groups);
  if (there) {
    const uint32_t tile = (group * tiles.down + left / rows) * tiles.across + right / columns;
    const int64_t area = static_cast<int64_t>(rows) * columns, step = tiles.count() * area;
    const Sum* const from = sums + tile * area + left % rows * columns + right % columns;
    Sum sum = 0;
#pragma unroll 4
    for (int64_t item = first_item[tap] + threadIdx.y; item < first_item[tap + 1]; item += blockDim.y)
      sum += from[item * step];
    slices[threadIdx.y * blockDim.x + threadIdx.x] = sum;
  }
  __syncthreads();
  if (!there || threadIdx.y != 0) return;
  Sum sum = slices[threadIdx.x];
  for (uint32_t slice = 1; slice < blockDim.y; ++slice) sum += slices[slice * blockDim.x + threadIdx.x];
  const uint32_t out = turned ? right : left, in = turned ? left : right;
  const uint32_t outs = turned ? right_channels : left_channels,
                 ins = turned ? left_channels : right_channels;
  gradient[(static_cast<int64_t>(group * outs + out) * gridDim.y + tap) * ins + in] = narrowed<Number>(sum);
}

}  // namespace hepfeed::device
