// Launchers of kernels/convolution.cuh and kernels/convolve_rows.cuh.
#pragma once

#include <cstdint>

#include "float16.h"
#include "kernels/convolution.h"
#include "launch.h"

namespace hepfeed::device {

// How a convolution is made.  kRows (convolve_rows) takes 8 channels of a group at most; the others are tiles
// of positions x channels, for features, weight and groups of channels that begin at multiples of 16 bytes.
enum class Variant : int32_t { kRows, k64x32, k64x64, k128x64, k128x128 };

// Throws std::invalid_argument where there is no such variant for T.  double has kRows and k64x32, float all
// but k128x128.
template <class T>
void convolve(const Convolution<T>& work, Variant variant, Stream stream);

// Numbers rounded to TF32 for the products, by tensor cores; all variants but kRows.
void convolve_tf32(const Convolution<float>& work, Variant variant, Stream stream);

}  // namespace hepfeed::device
