// The convolution and the gradient of its input by products of bfloat16.
#pragma once

#include "cpu/convolution.h"
#include "cpu/isa.h"

#if HEPFEED_X86

namespace hepfeed {

// convolve<bfloat16> and convolve_back<bfloat16> of convolution.h, where isa() has AVX512-BF16.
BadPair convolve_bf16(const bfloat16* in, size_t in_rows, const bfloat16* weight, const bfloat16* bias,
                      const PairLists& pairs, bfloat16* out, size_t out_rows, const Channels& channels,
                      int threads);
BadPair convolve_back_bf16(const bfloat16* grad, size_t out_rows, const bfloat16* weight,
                           const PairLists& back, bfloat16* in_grad, size_t in_rows, const Channels& channels,
                           int threads);

}  // namespace hepfeed

#endif
