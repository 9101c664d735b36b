#include "cpu/batch_norm.h"

#include <algorithm>
#include <vector>

#include "cpu/threads.h"

namespace hepfeed {
namespace {

// It is part of the definition of a sum over rows.  A block of 128 channels of float32 stays in the L2 cache
// between the loop for the mean and the loop for the deviations.
constexpr size_t kRowsOfBlock = 128;

size_t row_blocks(size_t rows) { return (rows + kRowsOfBlock - 1) / kRowsOfBlock; }

// Calls each(first row, last row, block) for every block.
template <class Each>
void for_row_blocks(size_t rows, int threads, const Each& each) {
  for_blocks(row_blocks(rows), threads, [&](size_t block) {
    const size_t first = block * kRowsOfBlock;
    each(first, std::min(first + kRowsOfBlock, rows), block);
  });
}

// sums[c] += term(row, c) over rows first .. last - 1.  Four rows at a time, so that sums are loaded and
// stored once for all of them.
template <class W, class Term>
HEPFEED_INLINE inline void add_rows(size_t first, size_t last, size_t channels, W* __restrict sums,
                                    const Term& term) {
  size_t row = first;
  for (; row + 4 <= last; row += 4)
    for (size_t c = 0; c < channels; ++c)
      sums[c] += (term(row, c) + term(row + 1, c)) + (term(row + 2, c) + term(row + 3, c));
  for (; row < last; ++row)
    for (size_t c = 0; c < channels; ++c) sums[c] += term(row, c);
}

template <class W>
HEPFEED_INLINE inline W normalised(W x, const Normalisation<W>& how, size_t c) {
  return (x - how.mean[c]) * how.scale[c] + how.shift[c];
}

// The gradient before ReLU.
template <bool relu, class W>
HEPFEED_INLINE inline W passed(W grad, W x, const Normalisation<W>& how, size_t c) {
  return !relu || normalised(x, how, c) > W{0} ? grad : W{0};
}

template <bool relu, class T>
void add_gradients(const T* grad, const T* x, size_t rows, size_t channels, const Normalisation<Wide<T>>& how,
                   Wide<T>* parts, int threads) {
  using W = Wide<T>;
  for_row_blocks(rows, threads, [&](size_t first, size_t last, size_t block) {
    W *sums = parts + 2 * block * channels, *products = sums + channels;
    for_isa([&]() HEPFEED_INLINE {
      add_rows(first, last, channels, sums, [&](size_t row, size_t c) HEPFEED_INLINE {
        return passed<relu>(widen(grad[row * channels + c]), widen(x[row * channels + c]), how, c);
      });
      add_rows(first, last, channels, products, [&](size_t row, size_t c) HEPFEED_INLINE {
        const W value = widen(x[row * channels + c]);
        return passed<relu>(widen(grad[row * channels + c]), value, how, c) * (value - how.mean[c]);
      });
    });
  });
}

template <bool relu, class T>
void put_gradients(const T* grad, const T* x, size_t rows, size_t channels, const Normalisation<Wide<T>>& how,
                   const Wide<T>* offset, const Wide<T>* slope, T* out, int threads) {
  using W = Wide<T>;
  for_row_blocks(rows, threads, [&](size_t first, size_t last, size_t) {
    for_isa([&]() HEPFEED_INLINE {
      for (size_t row = first; row < last; ++row) {
        const T *g = grad + row * channels, *values = x + row * channels;
        T* to = out + row * channels;
        for (size_t c = 0; c < channels; ++c) {
          const W value = widen(values[c]);
          to[c] = narrow<T>(passed<relu>(widen(g[c]), value, how, c) * how.scale[c] - offset[c] -
                            (value - how.mean[c]) * slope[c]);
        }
      }
    });
  });
}

}  // namespace

template <class T>
void column_moments(const T* x, size_t rows, size_t channels, Wide<T>* mean, Wide<T>* squares, int threads) {
  using W = Wide<T>;
  const size_t blocks = row_blocks(rows);
  std::vector<W> parts(2 * blocks * channels);
  for_row_blocks(rows, threads, [&](size_t first, size_t last, size_t block) {
    W *centre = parts.data() + 2 * block * channels, *spread = centre + channels;
    const W count = static_cast<W>(last - first);
    for_isa([&]() HEPFEED_INLINE {
      add_rows(first, last, channels, centre,
               [&](size_t row, size_t c) HEPFEED_INLINE { return widen(x[row * channels + c]); });
      for (size_t c = 0; c < channels; ++c) centre[c] /= count;
      add_rows(first, last, channels, spread, [&](size_t row, size_t c) HEPFEED_INLINE {
        const W deviation = widen(x[row * channels + c]) - centre[c];
        return deviation * deviation;
      });
    });
  });
  std::vector<double> means(channels), sums(channels);
  double before = 0;  // rows of the blocks so far
  for (size_t block = 0; block < blocks; ++block) {
    const W *centre = parts.data() + 2 * block * channels, *spread = centre + channels;
    const auto count = static_cast<double>(std::min(kRowsOfBlock, rows - block * kRowsOfBlock));
    const double all = before + count, share = count / all, weight = before * share;
    for (size_t c = 0; c < channels; ++c) {
      const double delta = static_cast<double>(centre[c]) - means[c];
      means[c] += delta * share;
      sums[c] += static_cast<double>(spread[c]) + delta * delta * weight;
    }
    before = all;
  }
  for (size_t c = 0; c < channels; ++c) mean[c] = static_cast<W>(means[c]);
  for (size_t c = 0; c < channels; ++c) squares[c] = static_cast<W>(sums[c]);
}

template <class T>
void normalise(const T* x, size_t rows, size_t channels, const Normalisation<Wide<T>>& how, T* out,
               int threads) {
  using W = Wide<T>;
  for_row_blocks(rows, threads, [&](size_t first, size_t last, size_t) {
    for_isa([&]() HEPFEED_INLINE {
      for (size_t row = first; row < last; ++row) {
        const T* from = x + row * channels;
        T* to = out + row * channels;
        for (size_t c = 0; c < channels; ++c) {
          const W value = normalised(widen(from[c]), how, c);
          to[c] = narrow<T>(how.relu && value < W{0} ? W{0} : value);
        }
      }
    });
  });
}

template <class T>
void gradient_sums(const T* grad, const T* x, size_t rows, size_t channels, const Normalisation<Wide<T>>& how,
                   Wide<T>* sums, Wide<T>* products, int threads) {
  const size_t blocks = row_blocks(rows);
  std::vector<Wide<T>> parts(2 * blocks * channels);
  (how.relu ? add_gradients<true, T> : add_gradients<false, T>)(grad, x, rows, channels, how, parts.data(),
                                                                threads);
  std::vector<double> totals(2 * channels);
  for (size_t block = 0; block < blocks; ++block)
    for (size_t c = 0; c < 2 * channels; ++c)
      totals[c] += static_cast<double>(parts[2 * block * channels + c]);
  for (size_t c = 0; c < channels; ++c) sums[c] = static_cast<Wide<T>>(totals[c]);
  for (size_t c = 0; c < channels; ++c) products[c] = static_cast<Wide<T>>(totals[channels + c]);
}

template <class T>
void normalise_back(const T* grad, const T* x, size_t rows, size_t channels,
                    const Normalisation<Wide<T>>& how, const Wide<T>* offset, const Wide<T>* slope, T* out,
                    int threads) {
  (how.relu ? put_gradients<true, T> : put_gradients<false, T>)(grad, x, rows, channels, how, offset, slope,
                                                                out, threads);
}

#define HEPFEED_BATCH_NORM(T)                                                                        \
  template void column_moments<T>(const T*, size_t, size_t, Wide<T>*, Wide<T>*, int);                \
  template void normalise<T>(const T*, size_t, size_t, const Normalisation<Wide<T>>&, T*, int);      \
  template void gradient_sums<T>(const T*, const T*, size_t, size_t, const Normalisation<Wide<T>>&,  \
                                 Wide<T>*, Wide<T>*, int);                                           \
  template void normalise_back<T>(const T*, const T*, size_t, size_t, const Normalisation<Wide<T>>&, \
                                  const Wide<T>*, const Wide<T>*, T*, int);
HEPFEED_BATCH_NORM(float)
HEPFEED_BATCH_NORM(double)
HEPFEED_BATCH_NORM(bfloat16)

}  // namespace hepfeed
