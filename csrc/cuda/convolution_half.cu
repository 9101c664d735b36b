#include "cuda/launch_convolution.h"

namespace hepfeed::device {

template <>
void convolve(const Convolution<Half>& work, Variant variant, Stream stream) {
  if (variant == Variant::kRows) return launch_rows(work, stream);
  launch_tensor_tiles(work, variant, stream);
}

}  // namespace hepfeed::device
