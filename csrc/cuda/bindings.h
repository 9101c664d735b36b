// What each family of kernels adds to the module.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace hepfeed::device {

namespace py = pybind11;

void bind_runtime(py::module_& module);
void bind_sites(py::module_& module);
void bind_convolution(py::module_& module);
void bind_weight_gradient(py::module_& module);
void bind_rows(py::module_& module);
void bind_images(py::module_& module);

}  // namespace hepfeed::device
