// The gradient of the weight: outer products of the rows of pairs.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>
#include <vector>

#include "cpu/convolution.h"
#include "cpu/products.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

// Pairs of a part for each slab of channels: fewer slabs, smaller parts.
constexpr int64_t kPartPairs = 4096;
// Channels of the left side that are one piece of work.
constexpr size_t kSlab = 64;
// Pairs that all tiles of sums pass over together: the rows of both sides stay in the first-level cache.
constexpr size_t kPairs = 64;

// One side of the outer products.
template <class T>
struct Side {
  const T* values;
  size_t stride;
  const int32_t* rows;  // of each pair
  size_t channels;      // of a group
};

// A part of the pairs of one tap.
struct Part {
  size_t tap;
  PairRange range;
};

std::vector<Part> parts_of(const PairLists& pairs, int64_t most) {
  std::vector<Part> parts;
  for (size_t tap = 0; tap < pairs.taps; ++tap) {
    const int64_t first = pairs.offsets[tap], count = pairs.offsets[tap + 1] - first;
    const int64_t number = (count + most - 1) / most;
    for (int64_t part = 0; part < number; ++part)
      parts.push_back({tap, {first + count * part / number, first + count * (part + 1) / number}});
  }
  return parts;
}

// Adds a row of sums to the items to[0], to[step], ..., or sets these to it where it is the first.
template <class T>
void add_row(const T* row, size_t items, T* to, size_t step, bool is_first) {
  if (step != 1) {
    for (size_t r = 0; r < items; ++r) to[r * step] = is_first ? row[r] : to[r * step] + row[r];
  } else if (is_first) {
    std::copy_n(row, items, to);
  } else {
    for (size_t r = 0; r < items; ++r) to[r] += row[r];
  }
}

}  // namespace

template <class T>
BadPair weight_gradient(const T* in, size_t in_rows, const T* grad, size_t out_rows, const PairLists& pairs,
                        T* weight_grad, const Channels& channels, int threads) {
  const Products<T>& kernels = products<T>();
  const size_t ci = channels.in / channels.groups, co = channels.out / channels.groups;
  const auto padding = [&](size_t width) { return (kernels.lanes - width % kernels.lanes) % kernels.lanes; };
  // sums[l, r] of left rows and right rows; the right side is that which fills vectors better.
  const bool turned = co * (ci + padding(ci)) > ci * (co + padding(co));
  Side<T> left{grad, channels.out, pairs.out, co}, right{in, channels.in, pairs.in, ci};
  if (turned) std::swap(left, right);
  const size_t width = right.channels + padding(right.channels);
  const size_t slabs = (left.channels + kSlab - 1) / kSlab;
  const std::vector<Part> parts = parts_of(pairs, kPartPairs * static_cast<int64_t>(slabs));
  const size_t matrix = left.channels * width;
  const Lines<T> sums = new_lines<T>(parts.size() * channels.groups * matrix);
  // Rows that are no whole vectors are copied to such, with zeros behind them.
  const bool copies = width != right.channels;
  ScratchPool scratch(copies ? kPairs * width * sizeof(T) : 0);
  int32_t copied_rows[kPairs];
  std::iota(copied_rows, copied_rows + kPairs, 0);
  std::atomic<bool> bad{false};
  for_blocks(parts.size() * channels.groups * slabs, threads, [&](size_t block) {
    const size_t slab = block % slabs, g = block / slabs % channels.groups,
                 part = block / slabs / channels.groups;
    const PairRange range = parts[part].range;
    if (!in_bounds(pairs, range, in_rows, out_rows)) return bad.store(true, std::memory_order_relaxed);
    scratch.with_piece([&](std::byte* piece) {
      T* const copied = reinterpret_cast<T*>(piece);
      if (copies) std::fill_n(copied, kPairs * width, T(0));
      const size_t first = slab * kSlab, height = std::min(kSlab, left.channels - first);
      const T* const left_values = left.values + g * left.channels + first;
      const T* const right_values = right.values + g * right.channels;
      T* const to = sums.get() + (part * channels.groups + g) * matrix + first * width;
      std::fill_n(to, height * width, T(0));
      for (int64_t p = range.first; p < range.last; p += kPairs) {
        const auto count = static_cast<size_t>(std::min<int64_t>(kPairs, range.last - p));
        if (copies)
          kernels.gather(right_values, right.stride, right.rows + p, count, right.channels, copied, width);
        kernels.outer(left_values, left.stride, left.rows + p, copies ? copied : right_values,
                      copies ? width : right.stride, copies ? copied_rows : right.rows + p, count, to, width,
                      height, width / kernels.lanes);
      }
    });
  });
  if (bad) return first_bad_pair(pairs, in_rows, out_rows, false);
  std::vector<size_t> starts(pairs.taps + 1);  // parts of each tap
  for (const Part& part : parts) ++starts[part.tap + 1];
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  const size_t across = pairs.taps * ci;  // from one output channel to the next
  for_blocks(pairs.taps * channels.groups, threads, [&](size_t block) {
    const size_t tap = block / channels.groups, g = block % channels.groups;
    T* const to = weight_grad + g * co * across + tap * ci;
    const size_t left_step = turned ? 1 : across, right_step = turned ? across : 1;
    const auto part_of = [&](size_t part) { return sums.get() + (part * channels.groups + g) * matrix; };
    for (size_t l = 0; l < left.channels; ++l) {
      T* const row = to + l * left_step;
      if (starts[tap] == starts[tap + 1])
        for (size_t r = 0; r < right.channels; ++r) row[r * right_step] = T(0);
      for (size_t part = starts[tap]; part < starts[tap + 1]; ++part)
        add_row(part_of(part) + l * width, right.channels, row, right_step, part == starts[tap]);
    }
  });
  return {};
}

template BadPair weight_gradient(const float*, size_t, const float*, size_t, const PairLists&, float*,
                                 const Channels&, int);
template BadPair weight_gradient(const double*, size_t, const double*, size_t, const PairLists&, double*,
                                 const Channels&, int);

}  // namespace hepfeed
