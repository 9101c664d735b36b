#include "cuda/launch_convolution.h"

namespace hepfeed::device {

void convolve_tf32(const Convolution<float>& work, Variant variant, Stream stream) {
  launch_tensor_tiles(work, variant, stream);
}

}  // namespace hepfeed::device
