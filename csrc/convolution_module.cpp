// Python bindings of the kernels of the sparse convolution: pybind11 only, no torch and no NumPy headers.
//
// Arrays are never copied here: one of another dtype, or not in C order, is refused.  bfloat16 is uint16, its
// bits.  Rows of pairs are checked by the kernels.
//
// All functions may be called from several threads at once, with or without Python's lock; arguments must not
// be changed by others meanwhile, and outputs must not overlap.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/column_sum.h"
#include "cpu/convolution.h"
#include "cpu/isa.h"

namespace py = pybind11;

namespace hepfeed {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // of arguments marked noconvert(): checked, not copied

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// As Python writes a tuple.
std::string text_of(const std::vector<size_t>& shape) {
  std::string text;
  for (const size_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

void require_shape(const char* name, const py::array& array, const std::vector<size_t>& expected) {
  const std::vector<size_t> shape(array.shape(), array.shape() + array.ndim());
  if (shape != expected)
    throw std::invalid_argument(std::string(name) + " is " + text_of(shape) + ", not " + text_of(expected));
}

// Calls body(T{}) for the type of numbers that all of `arrays` hold, in C order.
template <class Body, class... Arrays>
auto with_type(const Body& body, const py::array& first, const Arrays&... others) {
  const auto all = [&](auto zero) {
    using T = decltype(zero);
    return Array<T>::check_(first) && (Array<T>::check_(others) && ...);
  };
  if (all(float{})) return body(float{});
  if (all(double{})) return body(double{});
  if (all(uint16_t{})) return body(bfloat16{});
  throw std::invalid_argument("arrays must all be float32, all float64 or all uint16 (bfloat16), in C order");
}

template <class T>
const T* items(const py::array& array) {
  return static_cast<const T*>(array.data());
}

size_t rows_of(const char* name, const py::array& array) {
  if (array.ndim() != 2) throw std::invalid_argument(std::string(name) + " must have rows and channels");
  require(array.shape(0) <= std::numeric_limits<int32_t>::max(), "there are 2^31 rows or more");
  return static_cast<size_t>(array.shape(0));
}

PairLists pair_lists(const Array<int32_t>& in, const Array<int32_t>& out, const Array<int64_t>& offsets) {
  require(in.ndim() == 1 && out.ndim() == 1 && in.size() == out.size(), "maps must be (pairs,)");
  require(offsets.ndim() == 1 && offsets.size() >= 1 && offsets.data()[0] == 0, "offsets must begin with 0");
  for (py::ssize_t k = 1; k < offsets.size(); ++k)
    require(offsets.data()[k] >= offsets.data()[k - 1], "offsets must not fall");
  require(offsets.data()[offsets.size() - 1] == in.size(), "offsets must end with the number of pairs");
  return {in.data(), out.data(), offsets.data(), static_cast<size_t>(offsets.size() - 1)};
}

// Of a weight (C_out, taps, C_in / groups).
Channels channels_of(const py::array& weight, const PairLists& pairs, size_t groups) {
  require(weight.ndim() == 3 && static_cast<size_t>(weight.shape(1)) == pairs.taps,
          "the weight must be (C_out, taps, C_in / groups)");
  require(weight.shape(0) >= 1 && weight.shape(2) >= 1, "there must be one channel or more on both sides");
  require(groups >= 1 && static_cast<size_t>(weight.shape(0)) % groups == 0,
          "C_out must be a multiple of groups");
  return {static_cast<size_t>(weight.shape(2)) * groups, static_cast<size_t>(weight.shape(0)), groups};
}

void refuse(const BadPair& bad, const PairLists& pairs, size_t in_rows, size_t out_rows) {
  if (!bad.found) return;
  size_t tap = 0;
  while (pairs.offsets[tap + 1] <= bad.pair) ++tap;
  throw std::invalid_argument("pair " + std::to_string(bad.pair) + " of tap " + std::to_string(tap) +
                              " has rows (" + std::to_string(pairs.in[bad.pair]) + ", " +
                              std::to_string(pairs.out[bad.pair]) + "), which must lie in (" +
                              std::to_string(in_rows) + ", " + std::to_string(out_rows) +
                              "), the second above that of the pair before it");
}

void bind_forward(const py::array& features, const py::array& weight, const std::optional<py::array>& bias,
                  const Array<int32_t>& in_maps, const Array<int32_t>& out_maps,
                  const Array<int64_t>& offsets, py::array& out, size_t groups, int threads) {
  const PairLists pairs = pair_lists(in_maps, out_maps, offsets);
  const Channels channels = channels_of(weight, pairs, groups);
  const size_t in_rows = rows_of("features", features), out_rows = rows_of("out", out);
  require_shape("features", features, {in_rows, channels.in});
  require_shape("out", out, {out_rows, channels.out});
  if (bias) require_shape("bias", *bias, {channels.out});
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    auto* made = static_cast<T*>(out.mutable_data());
    const T *x = items<T>(features), *w = items<T>(weight), *b = bias ? items<T>(*bias) : nullptr;
    py::gil_scoped_release released;
    return convolve(x, in_rows, w, b, pairs, made, out_rows, channels, threads);
  };
  refuse(with_type(run, features, weight, bias ? *bias : features, out), pairs, in_rows, out_rows);
}

void bind_input_grad(const py::array& grad, const py::array& weight, const Array<int32_t>& back_in,
                     const Array<int32_t>& back_out, const Array<int64_t>& offsets, py::array& out,
                     size_t groups, int threads) {
  const PairLists back = pair_lists(back_in, back_out, offsets);
  const Channels channels = channels_of(weight, back, groups);
  const size_t grad_rows = rows_of("grad", grad), rows = rows_of("out", out);
  require_shape("grad", grad, {grad_rows, channels.out});
  require_shape("out", out, {rows, channels.in});
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    auto* made = static_cast<T*>(out.mutable_data());
    const T *g = items<T>(grad), *w = items<T>(weight);
    py::gil_scoped_release released;
    return convolve_back(g, grad_rows, w, back, made, rows, channels, threads);
  };
  refuse(with_type(run, grad, weight, out), back, grad_rows, rows);
}

void bind_weight_grad(const py::array& features, const py::array& grad, const Array<int32_t>& in_maps,
                      const Array<int32_t>& out_maps, const Array<int64_t>& offsets, py::array& out,
                      size_t groups, int threads) {
  const PairLists pairs = pair_lists(in_maps, out_maps, offsets);
  const Channels channels = channels_of(out, pairs, groups);
  const size_t in_rows = rows_of("features", features), out_rows = rows_of("grad", grad);
  require_shape("features", features, {in_rows, channels.in});
  require_shape("grad", grad, {out_rows, channels.out});
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    auto* made = static_cast<T*>(out.mutable_data());
    const T *x = items<T>(features), *g = items<T>(grad);
    py::gil_scoped_release released;
    return weight_gradient(x, in_rows, g, out_rows, pairs, made, channels, threads);
  };
  refuse(with_type(run, features, grad, out), pairs, in_rows, out_rows);
}

void bind_column_sum(const py::array& values, py::array& out, int threads) {
  const size_t rows = rows_of("values", values), columns = static_cast<size_t>(values.shape(1));
  require_shape("out", out, {columns});
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    auto* made = static_cast<T*>(out.mutable_data());
    const T* terms = items<T>(values);
    py::gil_scoped_release released;
    column_sum(terms, rows, columns, made, threads);
  };
  with_type(run, values, out);
}

}  // namespace
}  // namespace hepfeed

PYBIND11_MODULE(_convolution, m, py::mod_gil_not_used()) {
  using namespace hepfeed;  // NOLINT
  m.doc() = "Native kernels of the sparse convolution.";

  m.def("isa", &isa_name, "Name of the instruction set in use.");
  m.def("set_isa", &set_isa, py::arg("name"), "Restrict the kernels to an instruction set.");

  m.def("forward", &bind_forward, py::arg("features").noconvert(), py::arg("weight").noconvert(),
        py::arg("bias").noconvert().none(true), py::arg("in_maps").noconvert(),
        py::arg("out_maps").noconvert(), py::arg("offsets").noconvert(), py::arg("out").noconvert(),
        py::arg("groups"), py::arg("threads"),
        "out[o] = bias + the sum over taps k and their pairs (i, o) of features[i] W[k].");
  m.def("input_grad", &bind_input_grad, py::arg("grad").noconvert(), py::arg("weight").noconvert(),
        py::arg("back_in").noconvert(), py::arg("back_out").noconvert(), py::arg("offsets").noconvert(),
        py::arg("out").noconvert(), py::arg("groups"), py::arg("threads"),
        "out[i] = the sum over taps k and their swapped pairs (o, i) of grad[o] W[k]^T.");
  m.def("weight_grad", &bind_weight_grad, py::arg("features").noconvert(), py::arg("grad").noconvert(),
        py::arg("in_maps").noconvert(), py::arg("out_maps").noconvert(), py::arg("offsets").noconvert(),
        py::arg("out").noconvert(), py::arg("groups"), py::arg("threads"),
        "out[:, k] = the sum over the pairs (i, o) of tap k of grad[o]^T features[i].");
  m.def("column_sum", &bind_column_sum, py::arg("values").noconvert(), py::arg("out").noconvert(),
        py::arg("threads"), "out[c] = the sum over rows of values[row, c].");
}
