// Batch normalisation of rows, out = (x - mean) * scale + shift for each channel, perhaps followed by ReLU.
//
// Sums over rows are of fixed blocks, added in their order, so results are the same bits for any number of
// threads.  T is float, double or bfloat16 (all else is float32 then, and outputs rounded once).  Matrices
// are (rows, channels) in C order; out may be x or grad itself.
#pragma once

#include "cpu/bfloat16.h"

namespace hepfeed {

// What is done to each channel; arrays of `channels` numbers.
template <class W>
struct Normalisation {
  const W *mean, *scale, *shift;
  bool relu;  // numbers below 0 become 0; NaN stays NaN
};

// The mean of each channel, and the sum of squares of its deviations from it.  Of 0 rows both are 0.
// Blocks are joined by the formula of Chan, Golub and LeVeque (1979).
template <class T>
void column_moments(const T* x, size_t rows, size_t channels, Wide<T>* mean, Wide<T>* squares, int threads);

// out = (x - mean) * scale + shift, or the ReLU of that.
template <class T>
void normalise(const T* x, size_t rows, size_t channels, const Normalisation<Wide<T>>& how, T* out,
               int threads);

// For each channel sums[c] = sum of g and products[c] = sum of g * (x - mean) over rows, where g is `grad`,
// and 0 where ReLU cut.
template <class T>
void gradient_sums(const T* grad, const T* x, size_t rows, size_t channels, const Normalisation<Wide<T>>& how,
                   Wide<T>* sums, Wide<T>* products, int threads);

// out = g * scale - offset - (x - mean) * slope, with the g of gradient_sums().
template <class T>
void normalise_back(const T* grad, const T* x, size_t rows, size_t channels,
                    const Normalisation<Wide<T>>& how, const Wide<T>* offset, const Wide<T>* slope, T* out,
                    int threads);

}  // namespace hepfeed
