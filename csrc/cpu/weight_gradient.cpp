// The gradient of the weight: outer products of the rows of pairs.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>

#include "cpu/convolution.h"
#include "cpu/products.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

// Bytes of the rows of both sides in a block: they stay in the second-level cache while all taps pass over
// them, and so are read from memory once.
constexpr size_t kBlockBytes = 1 << 20, kLeastRows = 512, kMostRows = 8192;
// A part is some blocks with sums of its own: as many pairs for each tap that the sums do not count, and no
// more parts than that.
constexpr int64_t kPartPairs = 1024, kMostParts = 16;
// Pieces of work, where there are taps enough: parts are divided by taps into these.
constexpr size_t kTasks = 32;
// Channels of the left side that are taken together.
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

// How pairs are divided, which depends on them alone.
class Parts {
 public:
  Parts(const PairLists& pairs, size_t out_rows, size_t row_bytes, int threads)
      : pairs_(pairs),
        blocks_(pairs, out_rows,
                std::clamp(kBlockBytes / std::max<size_t>(row_bytes, 1), kLeastRows, kMostRows), threads) {
    const int64_t count = pairs.offsets[pairs.taps],
                  for_each = kPartPairs * static_cast<int64_t>(std::max<size_t>(pairs.taps, 1));
    parts_ =
        std::min(static_cast<size_t>(std::clamp<int64_t>(count / for_each, 1, kMostParts)), blocks_.blocks());
    tap_groups_ = std::min(pairs.taps, (kTasks + parts_ - 1) / parts_);
  }

  size_t parts() const { return parts_; }
  size_t tap_groups() const { return tap_groups_; }

  // The first tap of a group; groups have about as many pairs each.
  size_t first_tap(size_t group) const {
    if (group == tap_groups_) return pairs_.taps;
    const int64_t before =
        pairs_.offsets[pairs_.taps] / static_cast<int64_t>(tap_groups_) * static_cast<int64_t>(group);
    return static_cast<size_t>(std::lower_bound(pairs_.offsets, pairs_.offsets + pairs_.taps, before) -
                               pairs_.offsets);
  }

  // The first block of a part; that of part `parts` is the end.
  size_t first_block(size_t part) const { return part * blocks_.blocks() / parts_; }

  PairRange of_block(size_t tap, size_t block) const { return blocks_.range(tap, block); }

  bool is_empty(size_t tap, size_t part) const {
    return blocks_.range(tap, first_block(part)).first == blocks_.range(tap, first_block(part + 1) - 1).last;
  }

 private:
  const PairLists& pairs_;
  RowBlocks blocks_;
  size_t parts_, tap_groups_;
};

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
  const Parts parts(pairs, out_rows, (ci + co) * sizeof(T), threads);
  const size_t matrix = left.channels * width;
  const Lines<T> sums = new_lines<T>(pairs.taps * channels.groups * parts.parts() * matrix);
  const auto sums_of = [&](size_t tap, size_t g, size_t part) {
    return sums.get() + ((tap * channels.groups + g) * parts.parts() + part) * matrix;
  };
  // Rows that are no whole vectors are copied to such, with zeros behind them.
  const bool copies = width != right.channels;
  ScratchPool scratch(copies ? kPairs * width * sizeof(T) : 0);
  int32_t copied_rows[kPairs];
  std::iota(copied_rows, copied_rows + kPairs, 0);
  std::atomic<bool> bad{false};
  for_blocks(parts.parts() * channels.groups * parts.tap_groups(), threads, [&](size_t task) {
    const size_t tap_group = task % parts.tap_groups(), g = task / parts.tap_groups() % channels.groups,
                 part = task / parts.tap_groups() / channels.groups;
    const size_t first_tap = parts.first_tap(tap_group), last_tap = parts.first_tap(tap_group + 1);
    const T* const left_values = left.values + g * left.channels;
    const T* const right_values = right.values + g * right.channels;
    scratch.with_piece([&](std::byte* piece) {
      T* const copied = reinterpret_cast<T*>(piece);
      if (copies) std::fill_n(copied, kPairs * width, T(0));
      for (size_t tap = first_tap; tap < last_tap; ++tap)
        if (!parts.is_empty(tap, part)) std::fill_n(sums_of(tap, g, part), matrix, T(0));
      for (size_t block = parts.first_block(part); block < parts.first_block(part + 1); ++block) {
        for (size_t tap = first_tap; tap < last_tap; ++tap) {
          const PairRange range = parts.of_block(tap, block);
          if (!in_bounds(pairs, range, in_rows, out_rows)) return bad.store(true, std::memory_order_relaxed);
          for (size_t first = 0; first < left.channels; first += kSlab) {
            T* const to = sums_of(tap, g, part) + first * width;
            for (int64_t p = range.first; p < range.last; p += kPairs) {
              const auto count = static_cast<size_t>(std::min<int64_t>(kPairs, range.last - p));
              if (copies)
                kernels.gather(right_values, right.stride, right.rows + p, count, right.channels, copied,
                               width);
              kernels.outer(left_values + first, left.stride, left.rows + p, copies ? copied : right_values,
                            copies ? width : right.stride, copies ? copied_rows : right.rows + p, count, to,
                            width, std::min(kSlab, left.channels - first), width / kernels.lanes);
            }
          }
        }
      }
    });
  });
  if (bad) return first_bad_pair(pairs, in_rows, out_rows, false);
  const size_t across = pairs.taps * ci;  // from one output channel to the next
  for_blocks(pairs.taps * channels.groups, threads, [&](size_t block) {
    const size_t tap = block / channels.groups, g = block % channels.groups;
    T* const to = weight_grad + g * co * across + tap * ci;
    const size_t left_step = turned ? 1 : across, right_step = turned ? across : 1;
    for (size_t l = 0; l < left.channels; ++l) {
      T* const row = to + l * left_step;
      bool is_first = true;
      for (size_t part = 0; part < parts.parts(); ++part) {
        if (parts.is_empty(tap, part)) continue;
        add_row(sums_of(tap, g, part) + l * width, right.channels, row, right_step, is_first);
        is_first = false;
      }
      if (is_first)
        for (size_t r = 0; r < right.channels; ++r) row[r * right_step] = T(0);
    }
  });
  return {};
}

template BadPair weight_gradient(const float*, size_t, const float*, size_t, const PairLists&, float*,
                                 const Channels&, int);
template BadPair weight_gradient(const double*, size_t, const double*, size_t, const PairLists&, double*,
                                 const Channels&, int);

}  // namespace hepfeed
