#include "cpu/row_max.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/threads.h"
#include "cpu/wide_row.h"

namespace hepfeed {
namespace {

// A candidate is taken where it is larger, or NaN.
template <class W>
HEPFEED_INLINE inline bool beats(W candidate, W best) {
  return (candidate > best) | (candidate != candidate);
}

// The largest of entries first .. last - 1, one or more, for W channels from `channel` on: as many as the
// compiler keeps in registers, and no more.  A loop that GCC unrolls before it looks for vector code stays
// scalar: so it may not.
template <class T, size_t W>
HEPFEED_INLINE inline void largest(const T* in, size_t channels, const int32_t* columns, size_t first,
                                   size_t last, size_t channel, Wide<T>* out, int32_t* argmax) {
  Wide<T> best[W];
  int32_t row[W];
  const T* x = in + static_cast<size_t>(columns[first]) * channels + channel;
  for (size_t c = 0; c < W; ++c) best[c] = widen(x[c]);
  for (size_t c = 0; c < W; ++c) row[c] = columns[first];
  for (size_t p = first + 1; p < last; ++p) {
    const int32_t column = columns[p];
    x = in + static_cast<size_t>(column) * channels + channel;
#pragma GCC unroll 1
    for (size_t c = 0; c < W; ++c) {
      const Wide<T> value = widen(x[c]);
      const bool taken = beats(value, best[c]);
      best[c] = taken ? value : best[c];
      row[c] = taken ? column : row[c];
    }
  }
  for (size_t c = 0; c < W; ++c) out[channel + c] = best[c];
  for (size_t c = 0; c < W; ++c) argmax[channel + c] = row[c];
}

template <class T>
HEPFEED_INLINE inline void largest_of(const T* in, size_t channels, const int32_t* columns, size_t first,
                                      size_t last, Wide<T>* out, int32_t* argmax) {
  size_t c = 0;
  for (; c + 16 <= channels; c += 16) largest<T, 16>(in, channels, columns, first, last, c, out, argmax);
  for (; c + 4 <= channels; c += 4) largest<T, 4>(in, channels, columns, first, last, c, out, argmax);
  for (; c < channels; ++c) largest<T, 1>(in, channels, columns, first, last, c, out, argmax);
}

// out[c] = sum over entries first .. last - 1 that were taken from row `row`, for W channels from `channel`
// on.
template <class T, size_t W>
HEPFEED_INLINE inline void put(const T* in, const int32_t* argmax, size_t channels, const int32_t* columns,
                               size_t first, size_t last, int32_t row, size_t channel, Wide<T>* out) {
  Wide<T> sums[W] = {};
  for (size_t p = first; p < last; ++p) {
    const size_t at = static_cast<size_t>(columns[p]) * channels + channel;
#pragma GCC unroll 1
    for (size_t c = 0; c < W; ++c) {
      const Wide<T> value = widen(in[at + c]);
      sums[c] += argmax[at + c] == row ? value : Wide<T>{0};
    }
  }
  for (size_t c = 0; c < W; ++c) out[channel + c] = sums[c];
}

template <class T>
HEPFEED_INLINE inline void put_all(const T* in, const int32_t* argmax, size_t channels,
                                   const int32_t* columns, size_t first, size_t last, int32_t row,
                                   Wide<T>* out) {
  size_t c = 0;
  for (; c + 16 <= channels; c += 16) put<T, 16>(in, argmax, channels, columns, first, last, row, c, out);
  for (; c + 4 <= channels; c += 4) put<T, 4>(in, argmax, channels, columns, first, last, row, c, out);
  for (; c < channels; ++c) put<T, 1>(in, argmax, channels, columns, first, last, row, c, out);
}

}  // namespace

template <class T>
void row_max(const T* in, size_t in_rows, size_t channels, const RowLists& lists, T* out, int32_t* argmax,
             int threads) {
  const std::vector<Piece> pieces = long_pieces(lists);
  for_blocks(list_blocks(lists), threads, [&](size_t block) {
    const size_t first = block * kListsOfBlock, last = std::min(first + kListsOfBlock, lists.count);
    check_columns(lists, first, last, in_rows);
    WideRow<T> row(channels);
    for_isa([&]() HEPFEED_INLINE {
      for (size_t o = first; o < last; ++o) {
        const auto from = static_cast<size_t>(lists.starts[o]), to = static_cast<size_t>(lists.starts[o + 1]);
        if (to - from > kEntriesOfPiece) continue;
        T* values = out + o * channels;
        int32_t* rows = argmax + o * channels;
        if (from < to) {
          row.of(values, [&](Wide<T>* best) HEPFEED_INLINE {
            largest_of(in, channels, lists.columns, from, to, best, rows);
          });
        } else {
          for (size_t c = 0; c < channels; ++c) values[c] = T{};
          for (size_t c = 0; c < channels; ++c) rows[c] = -1;
        }
      }
    });
  });
  std::vector<Wide<T>> values(pieces.size() * channels);
  std::vector<int32_t> rows(pieces.size() * channels);
  for_blocks(pieces.size(), threads, [&](size_t p) {
    for_isa([&]() HEPFEED_INLINE {
      largest_of(in, channels, lists.columns, pieces[p].first, pieces[p].last, values.data() + p * channels,
                 rows.data() + p * channels);
    });
  });
  for (size_t p = 0; p < pieces.size(); ++p) {
    const size_t from = p * channels, to = pieces[p].list * channels;
    const bool opens = p == 0 || pieces[p - 1].list != pieces[p].list;
    for (size_t c = 0; c < channels; ++c) {
      if (!opens && !beats(values[from + c], widen(out[to + c]))) continue;
      out[to + c] = narrow<T>(values[from + c]);
      argmax[to + c] = rows[from + c];
    }
  }
}

template <class T>
void row_pick(const T* in, size_t in_rows, size_t channels, const int32_t* argmax, size_t rows, T* out,
              int threads) {
  for_blocks((rows + kListsOfBlock - 1) / kListsOfBlock, threads, [&](size_t block) {
    const size_t first = block * kListsOfBlock, last = std::min(first + kListsOfBlock, rows);
    for (size_t o = first; o < last; ++o) {
      for (size_t c = 0; c < channels; ++c) {
        const int32_t row = argmax[o * channels + c];
        if (row < -1 || row >= static_cast<int64_t>(in_rows))
          throw std::invalid_argument("argmax of row " + std::to_string(o) + " must be -1 or one of " +
                                      std::to_string(in_rows) + " rows, not " + std::to_string(row));
        out[o * channels + c] = row < 0 ? T{} : in[static_cast<size_t>(row) * channels + c];
      }
    }
  });
}

template <class T>
void row_put(const T* in, const int32_t* argmax, size_t in_rows, size_t channels, const RowLists& back,
             T* out, int threads) {
  long_pieces(back);  // for its checks
  for_blocks(list_blocks(back), threads, [&](size_t block) {
    const size_t first = block * kListsOfBlock, last = std::min(first + kListsOfBlock, back.count);
    check_columns(back, first, last, in_rows);
    WideRow<T> wide(channels);
    for_isa([&]() HEPFEED_INLINE {
      for (size_t i = first; i < last; ++i) {
        const auto from = static_cast<size_t>(back.starts[i]), to = static_cast<size_t>(back.starts[i + 1]);
        const auto row = static_cast<int32_t>(i);
        wide.of(out + i * channels, [&](Wide<T>* sums) HEPFEED_INLINE {
          put_all(in, argmax, channels, back.columns, from, to, row, sums);
        });
      }
    });
  });
}

#define HEPFEED_ROW_MAX(T)                                                                \
  template void row_max<T>(const T*, size_t, size_t, const RowLists&, T*, int32_t*, int); \
  template void row_pick<T>(const T*, size_t, size_t, const int32_t*, size_t, T*, int);   \
  template void row_put<T>(const T*, const int32_t*, size_t, size_t, const RowLists&, T*, int);
HEPFEED_ROW_MAX(float)
HEPFEED_ROW_MAX(double)
HEPFEED_ROW_MAX(bfloat16)

}  // namespace hepfeed
