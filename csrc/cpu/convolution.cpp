#include "cpu/convolution.h"

#include <algorithm>
#include <atomic>

#include "cpu/products.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

// Rows of a block, read and made: they stay in the second-level cache.
constexpr size_t kBlockBytes = 256 << 10, kLeastRows = 512, kMostRows = 2048;

// Depth of a piece of a panel, which stays in the first-level cache while rows stream past it.
template <class T>
constexpr size_t kDepth = 512 / sizeof(T);

// One group of channels of a product of rows with a matrix for each tap, in panels of whole vectors.  Panels
// differ by one vector at most.
struct Group {
  size_t depth, width, vectors, panels;

  template <class T>
  Group(size_t depth, size_t width, const Products<T>& kernels)
      : depth(depth),
        width(width),
        vectors((width + kernels.lanes - 1) / kernels.lanes),
        panels((vectors + kernels.vectors - 1) / kernels.vectors) {}

  // The first vector of a panel; that of panel `panels` is the end.
  size_t first_vector(size_t panel) const { return panel * vectors / panels; }
};

// Where the matrix of a tap and a group has its items: weight[from * from_step + to * to_step].
struct Layout {
  size_t from_step, to_step, tap_step, group_step;
};

// The weight as (taps, groups, panels) of (depth, vectors * lanes); columns beyond the width are 0.
template <class T>
Lines<T> pack(const T* weight, const Layout& layout, const PairLists& pairs, const Group& group,
              size_t groups, size_t lanes, int threads) {
  const size_t matrix = group.depth * group.vectors * lanes;
  Lines<T> packed = new_lines<T>(pairs.taps * groups * matrix);
  for_blocks(pairs.taps * groups, threads, [&](size_t block) {
    const size_t tap = block / groups;
    if (pairs.offsets[tap] == pairs.offsets[tap + 1]) return;
    const T* from = weight + tap * layout.tap_step + block % groups * layout.group_step;
    T* to = packed.get() + block * matrix;
    for (size_t panel = 0; panel < group.panels; ++panel) {
      const size_t first = group.first_vector(panel) * lanes, last = group.first_vector(panel + 1) * lanes;
      const size_t items = std::min(last, group.width) - first;
      for (size_t k = 0; k < group.depth; ++k, to += last - first) {
        const T* item = from + k * layout.from_step + first * layout.to_step;
        for (size_t j = 0; j < items; ++j) to[j] = item[j * layout.to_step];
        std::fill(to + items, to + (last - first), T(0));
      }
    }
  });
  return packed;
}

// All that the blocks of output rows share.
template <class T>
struct RowProduct {
  const Products<T>& kernels;
  const T* in;
  size_t in_rows;
  const T* packed;
  const T* starts;  // (groups, vectors * lanes)
  const PairLists& pairs;
  T* out;
  size_t out_rows;
  Group group;
  size_t groups;
};

// Sets `rows` rows of `width` items to the bias, or to 0 where that is null.
template <class T>
void fill_rows(const T* row, size_t width, T* rows, size_t stride, size_t count) {
  for (size_t r = 0; r < count; ++r) std::copy_n(row, width, rows + r * stride);
}

// Makes a block of rows of one group.  Sums lie where they end, but for a last panel that is wider than what
// is left: that one lies in `tail`.
template <class T>
void make_group(const RowProduct<T>& work, size_t g, const RowBlocks& blocks, size_t block, T* tail) {
  const Group& group = work.group;
  const auto first = blocks.first_row(block);
  const auto rows = static_cast<size_t>(blocks.last_row(block) - first);
  const size_t lanes = work.kernels.lanes, stride = work.groups * group.width;
  const bool has_tail = group.width % lanes != 0;
  const size_t tail_first = has_tail ? group.first_vector(group.panels - 1) * lanes : group.width;
  const size_t tail_width = group.vectors * lanes - tail_first, tail_items = group.width - tail_first;
  T* const out = work.out + static_cast<size_t>(first) * stride + g * group.width;
  const T* const start = work.starts + g * group.vectors * lanes;
  const T* const in = work.in + g * group.depth;
  const size_t in_stride = work.groups * group.depth, matrix = group.depth * group.vectors * lanes;
  const auto add_tap = [&](size_t tap, bool is_first) {
    const PairRange range = blocks.range(tap, block);
    const T* const panels = work.packed + (tap * work.groups + g) * matrix;
    const auto count = static_cast<size_t>(range.last - range.first);
    for (size_t panel = 0; count && panel < group.panels; ++panel) {
      const size_t begin = group.first_vector(panel), vectors = group.first_vector(panel + 1) - begin;
      const bool in_tail = has_tail && panel + 1 == group.panels;
      T* const sums = in_tail ? tail : out + begin * lanes;
      const size_t sums_stride = in_tail ? tail_width : stride;
      for (size_t k = 0; k < group.depth; k += kDepth<T>) {
        const bool begins = is_first && k == 0;
        work.kernels.multiply(
            in + k, in_stride, work.pairs.in + range.first, work.pairs.out + range.first, count,
            panels + (begin * group.depth + k * vectors) * lanes, std::min(kDepth<T>, group.depth - k),
            vectors,
            {begins ? start + begin * lanes : sums, begins ? 0 : sums_stride, sums, sums_stride, first});
      }
    }
  };
  // The middle tap begins the sums if it reaches every row of the output, as that of a submanifold kernel
  // does.  Were it any tap that reaches every row of a block, the order of the terms of a row, and so its
  // last bits, would depend on the rows beside it.
  const PairLists& pairs = work.pairs;
  const size_t middle = pairs.taps / 2;
  const bool is_whole =
      pairs.taps && group.depth &&
      static_cast<size_t>(pairs.offsets[middle + 1] - pairs.offsets[middle]) == work.out_rows;
  if (is_whole) {
    add_tap(middle, true);
  } else {
    fill_rows(start, tail_first, out, stride, rows);
    if (has_tail) fill_rows(start + tail_first, tail_width, tail, tail_width, rows);
  }
  for (size_t tap = 0; tap < pairs.taps; ++tap)
    if (!is_whole || tap != middle) add_tap(tap, false);
  if (!has_tail) return;
  for (size_t r = 0; r < rows; ++r)
    std::copy_n(tail + r * tail_width, tail_items, out + r * stride + tail_first);
}

// What sums begin with: the bias of each group, and zeros up to whole vectors.
template <class T>
Lines<T> starts_of(const T* bias, const Group& group, size_t groups, size_t lanes) {
  const size_t width = group.vectors * lanes;
  Lines<T> starts = new_lines<T>(groups * width);
  std::fill_n(starts.get(), groups * width, T(0));
  for (size_t g = 0; bias && g < groups; ++g)
    std::copy_n(bias + g * group.width, group.width, starts.get() + g * width);
  return starts;
}

template <class T>
BadPair make_rows(const RowProduct<T>& work, int threads) {
  const PairLists& pairs = work.pairs;
  const size_t row_bytes = work.groups * (work.group.depth + work.group.width) * sizeof(T);
  const size_t block_rows = std::clamp(kBlockBytes / std::max<size_t>(row_bytes, 1), kLeastRows, kMostRows);
  const RowBlocks blocks(pairs, work.out_rows, block_rows, threads);
  const size_t lanes = work.kernels.lanes;
  const size_t tail = work.group.width % lanes ? work.kernels.vectors * lanes : 0;
  ScratchPool scratch(std::min(work.out_rows, block_rows) * tail * sizeof(T));
  std::atomic<bool> bad{false};
  for_blocks(blocks.blocks(), threads, [&](size_t block) {
    for (size_t tap = 0; tap < pairs.taps; ++tap)
      if (!in_order(pairs, blocks.range(tap, block), work.in_rows, blocks.first_row(block),
                    blocks.last_row(block)))
        return bad.store(true, std::memory_order_relaxed);
    scratch.with_piece([&](std::byte* piece) {
      for (size_t g = 0; g < work.groups; ++g)
        make_group(work, g, blocks, block, reinterpret_cast<T*>(piece));
    });
  });
  return bad ? first_bad_pair(pairs, work.in_rows, work.out_rows, true) : BadPair{};
}

}  // namespace

template <class T>
BadPair convolve(const T* in, size_t in_rows, const T* weight, const T* bias, const PairLists& pairs, T* out,
                 size_t out_rows, const Channels& channels, int threads) {
  const size_t ci = channels.in / channels.groups, co = channels.out / channels.groups;
  const Products<T>& kernels = products<T>();
  const Group group(ci, co, kernels);
  const Layout layout{1, pairs.taps * ci, ci, co * pairs.taps * ci};
  const Lines<T> packed = pack(weight, layout, pairs, group, channels.groups, kernels.lanes, threads);
  const Lines<T> starts = starts_of(bias, group, channels.groups, kernels.lanes);
  return make_rows<T>(
      {kernels, in, in_rows, packed.get(), starts.get(), pairs, out, out_rows, group, channels.groups},
      threads);
}

template <class T>
BadPair convolve_back(const T* grad, size_t out_rows, const T* weight, const PairLists& back, T* in_grad,
                      size_t in_rows, const Channels& channels, int threads) {
  const size_t ci = channels.in / channels.groups, co = channels.out / channels.groups;
  const Products<T>& kernels = products<T>();
  const Group group(co, ci, kernels);
  const Layout layout{back.taps * ci, 1, ci, co * back.taps * ci};
  const Lines<T> packed = pack(weight, layout, back, group, channels.groups, kernels.lanes, threads);
  const Lines<T> starts = starts_of<T>(nullptr, group, channels.groups, kernels.lanes);
  return make_rows<T>(
      {kernels, grad, out_rows, packed.get(), starts.get(), back, in_grad, in_rows, group, channels.groups},
      threads);
}

#define HEPFEED_INSTANTIATE(T)                                                                              \
  template BadPair convolve(const T*, size_t, const T*, const T*, const PairLists&, T*, size_t,             \
                            const Channels&, int);                                                          \
  template BadPair convolve_back(const T*, size_t, const T*, const PairLists&, T*, size_t, const Channels&, \
                                 int);
HEPFEED_INSTANTIATE(float)
HEPFEED_INSTANTIATE(double)

}  // namespace hepfeed
