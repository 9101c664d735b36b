// The gradient of the weight by products of bfloat16.
#pragma once

#include "cpu/convolution.h"
#include "cpu/isa.h"

#if HEPFEED_X86

namespace hepfeed {

// weight_gradient<bfloat16> of convolution.h, where isa() has AVX512-BF16.
BadPair weight_gradient_bf16(const bfloat16* in, size_t in_rows, const bfloat16* grad, size_t out_rows,
                             const PairLists& pairs, bfloat16* weight_grad, const Channels& channels,
                             int threads);

}  // namespace hepfeed

#endif
