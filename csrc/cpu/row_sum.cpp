#include "cpu/row_sum.h"

#include <algorithm>

#include "cpu/threads.h"
#include "cpu/wide_row.h"

namespace hepfeed {
namespace {

// A matrix and the entries that pick from it.
template <class T>
struct Terms {
  const T* in;
  size_t channels;
  const int32_t* columns;
  Coefficients<T> coefficients;

  HEPFEED_INLINE const T* row(size_t entry) const {
    return in + static_cast<size_t>(columns[entry]) * channels;
  }

  // W channels from `channel` on: as many as the compiler keeps in registers, and no more.  A loop that GCC
  // unrolls before it looks for vector code stays scalar: so it may not.
  template <bool weighted, size_t W>
  HEPFEED_INLINE void add(size_t first, size_t last, size_t channel, Wide<T>* out) const {
    Wide<T> sums[W] = {};
    for (size_t p = first; p < last; ++p) {
      const T* x = row(p) + channel;
      const Wide<T> factor = weighted ? coefficients.values[coefficients.places[p]] : Wide<T>{1};
#pragma GCC unroll 1
      for (size_t c = 0; c < W; ++c) sums[c] += weighted ? factor * widen(x[c]) : widen(x[c]);
    }
    for (size_t c = 0; c < W; ++c) out[channel + c] = sums[c];
  }

  template <bool weighted>
  HEPFEED_INLINE void add_all(size_t first, size_t last, Wide<T>* out) const {
    size_t c = 0;
    for (; c + 16 <= channels; c += 16) add<weighted, 16>(first, last, c, out);
    for (; c + 4 <= channels; c += 4) add<weighted, 4>(first, last, c, out);
    for (; c < channels; ++c) add<weighted, 1>(first, last, c, out);
  }

  // out[c] = sum over entries first .. last - 1, of all channels.
  HEPFEED_INLINE void sum(size_t first, size_t last, Wide<T>* out) const {
    if (coefficients.values)
      add_all<true>(first, last, out);
    else
      add_all<false>(first, last, out);
  }
};

constexpr size_t kLanes = 16;  // of sums that are added at last, by halves

template <class T>
HEPFEED_INLINE inline Wide<T> dot(const T* left, const T* right, size_t channels) {
  Wide<T> lanes[kLanes] = {};
  size_t c = 0;
  for (; c + kLanes <= channels; c += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] += widen(left[c + lane]) * widen(right[c + lane]);
  for (size_t lane = 0; c < channels; ++c, ++lane) lanes[lane] += widen(left[c]) * widen(right[c]);
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

}  // namespace

template <class T>
void row_sum(const T* in, size_t in_rows, size_t channels, const RowLists& lists,
             const Coefficients<T>& coefficients, T* out, int threads) {
  const Terms<T> terms{in, channels, lists.columns, coefficients};
  const std::vector<Piece> pieces = long_pieces(lists);
  for_blocks(list_blocks(lists), threads, [&](size_t block) {
    const size_t first = block * kListsOfBlock, last = std::min(first + kListsOfBlock, lists.count);
    check_columns(lists, first, last, in_rows);
    if (coefficients.values) check_places(lists, first, last, coefficients.places);
    WideRow<T> row(channels);
    for_isa([&]() HEPFEED_INLINE {
      for (size_t o = first; o < last; ++o) {
        const auto from = static_cast<size_t>(lists.starts[o]), to = static_cast<size_t>(lists.starts[o + 1]);
        if (to - from > kEntriesOfPiece) continue;
        row.of(out + o * channels, [&](Wide<T>* sums) HEPFEED_INLINE { terms.sum(from, to, sums); });
      }
    });
  });
  std::vector<Wide<T>> parts(pieces.size() * channels);
  for_blocks(pieces.size(), threads, [&](size_t p) {
    Wide<T>* part = parts.data() + p * channels;
    for_isa([&]() HEPFEED_INLINE { terms.sum(pieces[p].first, pieces[p].last, part); });
  });
  // In float64, as the pieces of a list may be many.
  std::vector<double> sums(channels);
  for (size_t p = 0; p < pieces.size();) {
    const size_t list = pieces[p].list;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (; p < pieces.size() && pieces[p].list == list; ++p)
      for (size_t c = 0; c < channels; ++c) sums[c] += static_cast<double>(parts[p * channels + c]);
    for (size_t c = 0; c < channels; ++c) out[list * channels + c] = narrow<T>(static_cast<Wide<T>>(sums[c]));
  }
}

template <class T>
void row_dot(const T* left, const T* right, size_t right_rows, size_t channels, const RowLists& lists,
             const int32_t* places, Wide<T>* out, int threads) {
  long_pieces(lists);  // for its checks
  for_blocks(list_blocks(lists), threads, [&](size_t block) {
    const size_t first = block * kListsOfBlock, last = std::min(first + kListsOfBlock, lists.count);
    check_columns(lists, first, last, right_rows);
    check_places(lists, first, last, places);
    for_isa([&]() HEPFEED_INLINE {
      for (size_t o = first; o < last; ++o)
        for (int64_t p = lists.starts[o]; p < lists.starts[o + 1]; ++p)
          out[places[p]] =
              dot(left + o * channels, right + static_cast<size_t>(lists.columns[p]) * channels, channels);
    });
  });
}

#define HEPFEED_ROW_SUM(T)                                                                                \
  template void row_sum<T>(const T*, size_t, size_t, const RowLists&, const Coefficients<T>&, T*, int);   \
  template void row_dot<T>(const T*, const T*, size_t, size_t, const RowLists&, const int32_t*, Wide<T>*, \
                           int);
HEPFEED_ROW_SUM(float)
HEPFEED_ROW_SUM(double)
HEPFEED_ROW_SUM(bfloat16)

}  // namespace hepfeed
