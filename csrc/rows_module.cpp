// Python bindings of the kernels on rows: pybind11 only, no torch and no NumPy headers.
//
// Matrices are float32, float64, or uint16 for the bits of bfloat16, whose sums and coefficients are float32.
// Arrays are never copied here: one of another dtype, or not in C order, is refused.
//
// All functions may be called from several threads at once, with or without Python's lock; arguments must not
// be changed by others meanwhile, and outputs must not overlap.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <stdexcept>

#include "cpu/batch_norm.h"
#include "cpu/isa.h"
#include "cpu/row_lists.h"
#include "cpu/row_max.h"
#include "cpu/row_sum.h"

namespace py = pybind11;

namespace hepfeed {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // of arguments marked noconvert(): checked, not copied

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

size_t counted(py::ssize_t count, const char* message = "a matrix has less than 2^31 - 1 rows") {
  require(count >= 0 && count < std::numeric_limits<int32_t>::max(), message);
  return static_cast<size_t>(count);
}

void check_matrix(const py::array& matrix) {
  require(matrix.ndim() == 2 && (matrix.flags() & py::array::c_style),
          "a matrix must be (rows, channels) in C order");
  counted(matrix.shape(0));
}

// Whether the items are those of T, a bfloat16 being kept as uint16.
template <class T>
bool holds(const py::array& array) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return py::isinstance<Array<uint16_t>>(array);
  else
    return py::isinstance<Array<T>>(array);
}

template <class T>
const T* items(const py::array& array) {
  require(holds<T>(array),
          "arrays must be in C order and of one dtype: float32, float64 or uint16 (bfloat16)");
  return static_cast<const T*>(array.data());
}

template <class T>
T* room(py::array& array) {
  items<T>(array);
  return static_cast<T*>(array.mutable_data());
}

template <class W>
const W* channel_items(const py::array& array, py::ssize_t channels) {
  require(array.ndim() == 1 && array.shape(0) == channels, "a number for each channel was expected");
  return items<W>(array);
}

template <class W>
W* channel_room(py::array& array, py::ssize_t channels) {
  channel_items<W>(array, channels);
  return room<W>(array);
}

// Calls `function` with a number of the type of a matrix.
template <class Function>
void with_type(const py::array& matrix, const Function& function) {
  check_matrix(matrix);
  if (holds<float>(matrix)) return function(float{});
  if (holds<double>(matrix)) return function(double{});
  require(holds<bfloat16>(matrix), "a matrix must be float32, float64 or uint16 (bfloat16)");
  function(bfloat16{});
}

void check_shape(const py::array& matrix, py::ssize_t rows, py::ssize_t channels) {
  check_matrix(matrix);
  require(matrix.shape(0) == rows && matrix.shape(1) == channels, "matrices differ in rows or channels");
}

RowLists lists_of(const Array<int64_t>& starts, const Array<int32_t>& columns) {
  require(starts.ndim() == 1 && starts.size() >= 1 && columns.ndim() == 1,
          "lists are starts (count + 1) and columns (entries)");
  return {starts.data(), columns.data(), counted(starts.size() - 1), static_cast<size_t>(columns.size())};
}

const int32_t* places_of(const Array<int32_t>& places, const RowLists& lists) {
  require(places.ndim() == 1 && static_cast<size_t>(places.size()) == lists.entries,
          "places must have an item for each entry");
  return places.data();
}

py::tuple bind_list_rows(const Array<int32_t>& target, const Array<int32_t>& source, py::ssize_t targets,
                         py::ssize_t sources, bool with_places) {
  require(target.ndim() == 1 && source.ndim() == 1 && target.size() == source.size(),
          "target and source must have an item for each pair");
  const size_t target_rows = counted(targets), source_rows = counted(sources);
  const auto pairs = static_cast<size_t>(target.size());
  if (with_places) counted(target.size(), "pairs with places are less than 2^31 - 1");
  Array<int64_t> starts(targets + 1);
  Array<int32_t> columns(target.size()), places(with_places ? target.size() : 0);
  int64_t* starts_out = starts.mutable_data();
  int32_t* columns_out = columns.mutable_data();
  int32_t* places_out = with_places ? places.mutable_data() : nullptr;
  {
    py::gil_scoped_release released;
    list_rows(target.data(), source.data(), pairs, target_rows, source_rows, starts_out, columns_out,
              places_out);
  }
  return py::make_tuple(starts, columns, places);
}

void bind_row_sum(const py::array& features, const std::optional<py::array>& coefficients,
                  const Array<int64_t>& starts, const Array<int32_t>& columns, const Array<int32_t>& places,
                  py::array& out, int threads) {
  with_type(features, [&](auto zero) {
    using T = decltype(zero);
    const RowLists lists = lists_of(starts, columns);
    check_shape(out, starts.size() - 1, features.shape(1));
    Coefficients<T> factors{nullptr, nullptr};
    if (coefficients) {
      require(coefficients->ndim() == 1 && coefficients->shape(0) == columns.size(),
              "coefficients must have an item for each entry");
      factors = {items<Wide<T>>(*coefficients), places_of(places, lists)};
    }
    const T* in = items<T>(features);
    T* to = room<T>(out);
    const auto rows = static_cast<size_t>(features.shape(0)),
               channels = static_cast<size_t>(features.shape(1));
    py::gil_scoped_release released;
    row_sum<T>(in, rows, channels, lists, factors, to, threads);
  });
}

void bind_row_dot(const py::array& left, const py::array& right, const Array<int64_t>& starts,
                  const Array<int32_t>& columns, const Array<int32_t>& places, py::array& out, int threads) {
  with_type(right, [&](auto zero) {
    using T = decltype(zero);
    const RowLists lists = lists_of(starts, columns);
    const int32_t* to = places_of(places, lists);
    check_shape(left, starts.size() - 1, right.shape(1));
    require(out.ndim() == 1 && out.shape(0) == columns.size(), "out must have an item for each entry");
    const T *a = items<T>(left), *b = items<T>(right);
    Wide<T>* dots = room<Wide<T>>(out);
    const auto rows = static_cast<size_t>(right.shape(0)), channels = static_cast<size_t>(right.shape(1));
    py::gil_scoped_release released;
    row_dot<T>(a, b, rows, channels, lists, to, dots, threads);
  });
}

void bind_row_max(const py::array& features, const Array<int64_t>& starts, const Array<int32_t>& columns,
                  py::array& out, Array<int32_t>& argmax, int threads) {
  with_type(features, [&](auto zero) {
    using T = decltype(zero);
    const RowLists lists = lists_of(starts, columns);
    check_shape(out, starts.size() - 1, features.shape(1));
    check_shape(argmax, starts.size() - 1, features.shape(1));
    const T* in = items<T>(features);
    T* to = room<T>(out);
    int32_t* rows_out = argmax.mutable_data();
    const auto rows = static_cast<size_t>(features.shape(0)),
               channels = static_cast<size_t>(features.shape(1));
    py::gil_scoped_release released;
    row_max<T>(in, rows, channels, lists, to, rows_out, threads);
  });
}

void bind_row_pick(const py::array& features, const Array<int32_t>& argmax, py::array& out, int threads) {
  with_type(features, [&](auto zero) {
    using T = decltype(zero);
    check_matrix(argmax);
    check_shape(argmax, argmax.shape(0), features.shape(1));
    check_shape(out, argmax.shape(0), features.shape(1));
    const T* in = items<T>(features);
    T* to = room<T>(out);
    const auto rows = static_cast<size_t>(features.shape(0)),
               channels = static_cast<size_t>(features.shape(1));
    const auto out_rows = static_cast<size_t>(argmax.shape(0));
    py::gil_scoped_release released;
    row_pick<T>(in, rows, channels, argmax.data(), out_rows, to, threads);
  });
}

void bind_row_put(const py::array& features, const Array<int32_t>& argmax, const Array<int64_t>& starts,
                  const Array<int32_t>& columns, py::array& out, int threads) {
  with_type(features, [&](auto zero) {
    using T = decltype(zero);
    const RowLists lists = lists_of(starts, columns);
    check_shape(argmax, features.shape(0), features.shape(1));
    check_shape(out, starts.size() - 1, features.shape(1));
    const T* in = items<T>(features);
    T* to = room<T>(out);
    const auto rows = static_cast<size_t>(features.shape(0)),
               channels = static_cast<size_t>(features.shape(1));
    py::gil_scoped_release released;
    row_put<T>(in, argmax.data(), rows, channels, lists, to, threads);
  });
}

void bind_column_moments(const py::array& x, py::array& mean, py::array& squares, int threads) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T* in = items<T>(x);
    auto *centre = channel_room<Wide<T>>(mean, x.shape(1)),
         *spread = channel_room<Wide<T>>(squares, x.shape(1));
    const auto rows = static_cast<size_t>(x.shape(0)), channels = static_cast<size_t>(x.shape(1));
    py::gil_scoped_release released;
    column_moments<T>(in, rows, channels, centre, spread, threads);
  });
}

// What is done to each channel, as arguments.
template <class W>
Normalisation<W> normalisation_of(const py::array& mean, const py::array& scale, const py::array& shift,
                                  bool relu, py::ssize_t channels) {
  return {channel_items<W>(mean, channels), channel_items<W>(scale, channels),
          channel_items<W>(shift, channels), relu};
}

void bind_normalise(const py::array& x, const py::array& mean, const py::array& scale, const py::array& shift,
                    bool relu, py::array& out, int threads) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const auto how = normalisation_of<Wide<T>>(mean, scale, shift, relu, x.shape(1));
    check_shape(out, x.shape(0), x.shape(1));
    const T* in = items<T>(x);
    T* to = room<T>(out);
    const auto rows = static_cast<size_t>(x.shape(0)), channels = static_cast<size_t>(x.shape(1));
    py::gil_scoped_release released;
    normalise<T>(in, rows, channels, how, to, threads);
  });
}

void bind_gradient_sums(const py::array& grad, const py::array& x, const py::array& mean,
                        const py::array& scale, const py::array& shift, bool relu, py::array& sums,
                        py::array& products, int threads) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const auto how = normalisation_of<Wide<T>>(mean, scale, shift, relu, x.shape(1));
    check_shape(grad, x.shape(0), x.shape(1));
    const T *g = items<T>(grad), *in = items<T>(x);
    auto* sums_out = channel_room<Wide<T>>(sums, x.shape(1));
    auto* products_out = channel_room<Wide<T>>(products, x.shape(1));
    const auto rows = static_cast<size_t>(x.shape(0)), channels = static_cast<size_t>(x.shape(1));
    py::gil_scoped_release released;
    gradient_sums<T>(g, in, rows, channels, how, sums_out, products_out, threads);
  });
}

void bind_normalise_back(const py::array& grad, const py::array& x, const py::array& mean,
                         const py::array& scale, const py::array& shift, bool relu, const py::array& offset,
                         const py::array& slope, py::array& out, int threads) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const auto how = normalisation_of<Wide<T>>(mean, scale, shift, relu, x.shape(1));
    check_shape(grad, x.shape(0), x.shape(1));
    check_shape(out, x.shape(0), x.shape(1));
    const auto *a = channel_items<Wide<T>>(offset, x.shape(1)),
               *b = channel_items<Wide<T>>(slope, x.shape(1));
    const T *g = items<T>(grad), *in = items<T>(x);
    T* to = room<T>(out);
    const auto rows = static_cast<size_t>(x.shape(0)), channels = static_cast<size_t>(x.shape(1));
    py::gil_scoped_release released;
    normalise_back<T>(g, in, rows, channels, how, a, b, to, threads);
  });
}

}  // namespace
}  // namespace hepfeed

PYBIND11_MODULE(_rows, m, py::mod_gil_not_used()) {
  using namespace hepfeed;  // NOLINT
  m.doc() = "Native kernels of hepfeed on the rows of matrices.";

  m.def("isa", &isa_name, "Name of the instruction set in use.");
  m.def("set_isa", &set_isa, py::arg("name"), "Restrict the kernels to an instruction set.");

  m.def("list_rows", &bind_list_rows, py::arg("target").noconvert(), py::arg("source").noconvert(),
        py::arg("targets"), py::arg("sources"), py::arg("with_places"),
        "Lists of the sources of each target: (starts, columns, places).");
  m.def("row_sum", &bind_row_sum, py::arg("features"), py::arg("coefficients").none(true),
        py::arg("starts").noconvert(), py::arg("columns").noconvert(), py::arg("places").noconvert(),
        py::arg("out"), py::arg("threads") = 1, "Sums of the rows in lists.");
  m.def("row_dot", &bind_row_dot, py::arg("left"), py::arg("right"), py::arg("starts").noconvert(),
        py::arg("columns").noconvert(), py::arg("places").noconvert(), py::arg("out"), py::arg("threads") = 1,
        "Products of each row with the rows in its list.");
  m.def("row_max", &bind_row_max, py::arg("features"), py::arg("starts").noconvert(),
        py::arg("columns").noconvert(), py::arg("out"), py::arg("argmax").noconvert(), py::arg("threads") = 1,
        "Largest numbers of the rows in lists, and which rows they are of.");
  m.def("row_pick", &bind_row_pick, py::arg("features"), py::arg("argmax").noconvert(), py::arg("out"),
        py::arg("threads") = 1, "Numbers of the rows that argmax names.");
  m.def("row_put", &bind_row_put, py::arg("features"), py::arg("argmax").noconvert(),
        py::arg("starts").noconvert(), py::arg("columns").noconvert(), py::arg("out"), py::arg("threads") = 1,
        "Sums of what goes back to the rows that argmax names.");

  m.def("column_moments", &bind_column_moments, py::arg("x"), py::arg("mean"), py::arg("squares"),
        py::arg("threads") = 1, "Mean of each channel, and the sum of squared deviations from it.");
  m.def("normalise", &bind_normalise, py::arg("x"), py::arg("mean"), py::arg("scale"), py::arg("shift"),
        py::arg("relu"), py::arg("out"), py::arg("threads") = 1,
        "(x - mean) * scale + shift, or the ReLU of that.");
  m.def("gradient_sums", &bind_gradient_sums, py::arg("grad"), py::arg("x"), py::arg("mean"),
        py::arg("scale"), py::arg("shift"), py::arg("relu"), py::arg("sums"), py::arg("products"),
        py::arg("threads") = 1, "For each channel the sums of grad and of grad * (x - mean).");
  m.def("normalise_back", &bind_normalise_back, py::arg("grad"), py::arg("x"), py::arg("mean"),
        py::arg("scale"), py::arg("shift"), py::arg("relu"), py::arg("offset"), py::arg("slope"),
        py::arg("out"), py::arg("threads") = 1, "grad * scale - offset - (x - mean) * slope.");
}
