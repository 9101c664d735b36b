// Batch normalisation of rows; see kernels/batch_norm.cuh.
//
// Matrices are (rows, channels) in C order; what there is one number of for each channel is float32, or
// float64 for float64.  All addresses are of device memory that the caller owns; work is queued on `stream`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/float_type.h"
#include "launch.h"

namespace hepfeed::device {

// What is done to each channel; weight and bias may be null, for 1 and 0.
struct ChannelArrays {
  const void *mean, *inverse, *weight, *bias;
  bool relu;
};

// Bytes of work space for batch_statistics() and batch_norm_grad().
size_t batch_norm_bytes(FloatType type, int64_t rows, int64_t channels);

// The mean, 1 / sqrt(variance + eps) and the unbiased variance of each channel, of two rows or more.
void batch_statistics(FloatType type, const void* x, int64_t rows, int64_t channels, double eps, void* mean,
                      void* inverse, void* variance, void* work, Stream stream);

// The same of given statistics.
void given_statistics(FloatType type, const void* running_mean, const void* running_variance,
                      int64_t channels, double eps, void* mean, void* inverse, void* variance, Stream stream);

// out = (x - mean) * inverse * weight + bias, or the ReLU of that.
void batch_norm(FloatType type, const void* x, int64_t rows, int64_t channels, const ChannelArrays& how,
                void* out, Stream stream);

// The gradients of x, weight and bias.  `of_batch` says that mean and inverse are of these rows.  `slopes`
// has room for 2 numbers a channel.
void batch_norm_grad(FloatType type, const void* grad, const void* x, int64_t rows, int64_t channels,
                     const ChannelArrays& how, bool of_batch, void* out, void* weight_grad, void* bias_grad,
                     void* slopes, void* work, Stream stream);

}  // namespace hepfeed::device
