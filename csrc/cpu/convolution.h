// Sparse convolution over the pairs of a kernel map: out[o] = bias + sum over taps k and pairs (i, o) of k of
// in[i] W[k].
//
// Every row of an output belongs to one thread and its terms are added in one order, so results are the same
// bits for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/bfloat16.h"
#include "cpu/pair_lists.h"

namespace hepfeed {

// Numbers of channels are those of all groups together; both are multiples of `groups`, which is 1 or more.
struct Channels {
  size_t in, out, groups;
};

// T is float, double or bfloat16 (sums are float32 then, and outputs rounded once, to nearest even).
// The result is the first bad pair, if there is one.
//
// Arrays are in C order and may not overlap; an array without items may be null.  Rows of pairs are checked
// as they are used: nothing is read or written out of bounds; where a pair is bad, the output is of no use.
// Numbers of rows are below 2^31.  The instruction set is that of the begin of the call.

// in (in_rows, C_in), weight (C_out, taps, C_in / groups), bias (C_out) or null, out (out_rows, C_out).
template <class T>
BadPair convolve(const T* in, size_t in_rows, const T* weight, const T* bias, const PairLists& pairs, T* out,
                 size_t out_rows, const Channels& channels, int threads);

// The gradient of the input: in_grad[i] = sum over taps and pairs of grad[o] W[k]^T.  `back` has the pairs
// with input and output swapped: grad rows in `back.in`, rows of in_grad, rising, in `back.out`.  grad
// (out_rows, C_out), in_grad (in_rows, C_in).
template <class T>
BadPair convolve_back(const T* grad, size_t out_rows, const T* weight, const PairLists& back, T* in_grad,
                      size_t in_rows, const Channels& channels, int threads);

// The gradient of the weight: weight_grad[:, k, :] = sum over pairs of grad[o]^T in[i].
// Split into parts by the number of pairs alone, and the parts are added in order.  Here output rows need not
// rise.
template <class T>
BadPair weight_gradient(const T* in, size_t in_rows, const T* grad, size_t out_rows, const PairLists& pairs,
                        T* weight_grad, const Channels& channels, int threads);

// In convolution_bf16.cpp.
template <>
BadPair convolve(const bfloat16* in, size_t in_rows, const bfloat16* weight, const bfloat16* bias,
                 const PairLists& pairs, bfloat16* out, size_t out_rows, const Channels& channels,
                 int threads);
template <>
BadPair convolve_back(const bfloat16* grad, size_t out_rows, const bfloat16* weight, const PairLists& back,
                      bfloat16* in_grad, size_t in_rows, const Channels& channels, int threads);
template <>
BadPair weight_gradient(const bfloat16* in, size_t in_rows, const bfloat16* grad, size_t out_rows,
                        const PairLists& pairs, bfloat16* weight_grad, const Channels& channels, int threads);

}  // namespace hepfeed
