#include "cpu/isa.h"

#if HEPFEED_X86

#define HEPFEED_VEC Avx512Vec
#define HEPFEED_TARGET HEPFEED_TARGET_AVX512
#include "cpu/products_kernels.h"

namespace hepfeed {

template <>
const Products<float>& avx512_products() {
  return kProducts<float>;
}

template <>
const Products<double>& avx512_products() {
  return kProducts<double>;
}

}  // namespace hepfeed

#endif  // HEPFEED_X86
