// One value of a group of rows: sums of points in a voxel, and their labels.
#pragma once

#include "kernels/numbers.cuh"
#include "kernels/rounded.cuh"
#include "port.h"

namespace hepfeed::device {

// Where group `number` begins, or -1 where none begins there.
__device__ inline int64_t start_of(const Groups& groups, int64_t number) {
  if (groups.starts) return groups.starts[number];
  const bool begins =
      groups.keys[number] < groups.outside && (number == 0 || groups.keys[number - 1] != groups.keys[number]);
  return begins ? number : -1;
}

// The end of the group that begins at `start`.
__device__ inline int64_t end_of(const Groups& groups, int64_t start) {
  int64_t end = start + 1;
  while (end < groups.rows && groups.keys[end] == groups.keys[start]) ++end;
  return end;
}

// out[g, c] = reduction of in[order[i], c] over a group, in float64 in the order of i, rounded once to
// float32; a maximum with a NaN is NaN.  Without `in`, groups have the number of their rows.  Without starts,
// g is the key: the other items of `out` are left as they are.
//
// One thread a number: the order of the sum is what makes it equal to the CPU's.  A group of very many rows
// is therefore one thread's work.
__global__ void reduce_group_columns(Groups groups, Items in, int64_t columns, Reduction reduction,
                                     float* __restrict__ out, int64_t out_stride) {
  const int64_t thread = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (thread >= groups.count * columns) return;
  const int64_t number = thread / columns, column = thread % columns;
  const int64_t start = start_of(groups, number);
  if (start < 0) return;
  const uint64_t key = groups.keys[start];
  int64_t i = start;
  double value = 0;
  for (; i < groups.rows && groups.keys[i] == key; ++i) {
    const double next = in.data ? double_at(in.data, in.type, groups.order[i] * columns + column) : 1.0;
    if (reduction != Reduction::max)
      value = __dadd_rn(value, next);
    else if (i == start || (!(next <= value) && value == value))
      value = next;
  }
  if (reduction == Reduction::mean) value = __ddiv_rn(value, static_cast<double>(i - start));
  const int64_t place = groups.starts ? number : static_cast<int64_t>(key);
  out[place * out_stride + column] = static_cast<float>(value);
}

// out[g] = the label of the row of a group with the largest weight, of several the first one; a NaN is below
// every number.
__global__ void pick_largest_labels(Groups groups, const int64_t* __restrict__ label, Items weight,
                                    int64_t stride, int64_t* __restrict__ out) {
  const int64_t number = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (number >= groups.count) return;
  const int64_t start = groups.starts[number], end = end_of(groups, start);
  int64_t best = groups.order[start];
  double holder = double_at(weight.data, weight.type, best * stride);
  for (int64_t i = start + 1; i < end; ++i) {
    const double challenger = double_at(weight.data, weight.type, groups.order[i] * stride);
    if (challenger > holder || (holder != holder && challenger == challenger)) {
      best = groups.order[i];
      holder = challenger;
    }
  }
  out[number] = label[best];
}

// out[g] = the label that most rows of a group have, of several the least; the rows of a group are in the
// order of their labels.
__global__ void pick_majority_labels(Groups groups, const int64_t* __restrict__ label,
                                     int64_t* __restrict__ out) {
  const int64_t number = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (number >= groups.count) return;
  const int64_t start = groups.starts[number], end = end_of(groups, start);
  int64_t most = 0, found = 0;
  for (int64_t first = start; first < end;) {
    const int64_t value = label[groups.order[first]];
    int64_t last = first + 1;
    while (last < end && label[groups.order[last]] == value) ++last;
    if (last - first > most) {
      most = last - first;
      found = value;
    }
    first = last;
  }
  out[number] = found;
}

}  // namespace hepfeed::device
