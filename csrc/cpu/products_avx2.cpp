#include "cpu/isa.h"

#if HEPFEED_X86

#define HEPFEED_VEC Avx2Vec
#define HEPFEED_TARGET HEPFEED_TARGET_AVX2
#include "cpu/products_kernels.h"

namespace hepfeed {

template <>
const Products<float>& avx2_products() {
  return kProducts<float>;
}

template <>
const Products<double>& avx2_products() {
  return kProducts<double>;
}

}  // namespace hepfeed

#endif  // HEPFEED_X86
