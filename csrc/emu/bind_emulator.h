// What the emulated module has and no other.
#pragma once

#include <pybind11/pybind11.h>

#include "emu/grid.h"

namespace hepfeed::device {

inline void bind_emulator(pybind11::module_& module) {
  module.def("set_seed", &emulated::set_seed, pybind11::arg("seed"));
}

}  // namespace hepfeed::device
