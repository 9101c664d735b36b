// Addresses as Python passes them: integers, of device memory, or of host memory where kernels are emulated.
#pragma once

#include <cstdint>

namespace hepfeed::device {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace hepfeed::device
