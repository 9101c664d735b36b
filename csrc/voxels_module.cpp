// Python bindings of the kernels on voxels: pybind11 only, no torch and no NumPy headers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_voxels, m) {
  m.doc() = "Native kernels of hepfeed on voxels.";
}
