#include "cuda/launch_convolution.h"

namespace hepfeed::device {

template <>
void convolve(const Convolution<double>& work, Variant variant, Stream stream) {
  switch (variant) {
    case Variant::kRows:
      return launch_rows(work, stream);
    case Variant::k64x32:
      return launch_tiles<ScalarProduct<double, 64, 32, 4, 4>, 64, 32, 3, 4>(work, stream);
    default:
      throw std::invalid_argument("there is no such variant of a convolution of float64");
  }
}

template <>
void convolve(const Convolution<float>& work, Variant variant, Stream stream) {
  switch (variant) {
    case Variant::kRows:
      return launch_rows(work, stream);
    case Variant::k64x32:
      return launch_tiles<ScalarProduct<float, 64, 32, 4, 4>, 64, 32, 3, 4>(work, stream);
    case Variant::k64x64:
      return launch_tiles<ScalarProduct<float, 64, 64, 4, 8>, 64, 64, 3, 4>(work, stream);
    case Variant::k128x64:
      return launch_tiles<ScalarProduct<float, 128, 64, 8, 8>, 128, 64, 3, 2>(work, stream);
    default:
      throw std::invalid_argument("there is no such variant of a convolution of float32");
  }
}

}  // namespace hepfeed::device
