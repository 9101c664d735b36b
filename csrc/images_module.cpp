// Python bindings of the kernels on images: pybind11 only, no torch and no NumPy headers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_images, m) {
  m.doc() = "Native kernels of hepfeed on images.";
}
