#define HEPFEED_VEC BaselineVec
#define HEPFEED_TARGET
#include "cpu/products_kernels.h"

namespace hepfeed {

template <>
const Products<float>& baseline_products() {
  return kProducts<float>;
}

template <>
const Products<double>& baseline_products() {
  return kProducts<double>;
}

template <class T>
const Products<T>& products() {
#if HEPFEED_X86
  if (isa() >= Isa::avx512) return avx512_products<T>();
  if (isa() >= Isa::avx2) return avx2_products<T>();
#endif
  return baseline_products<T>();
}

template const Products<float>& products();
template const Products<double>& products();

}  // namespace hepfeed
