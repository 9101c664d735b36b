// Python bindings of the kernels on images: pybind11 only, no torch and no NumPy headers.
//
// Arrays are never copied: one of another type, or not contiguous, is refused.
//
// All functions may be called from several threads at once, with or without Python's lock; arguments must not
// be changed by others meanwhile, and outputs must not overlap.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <numeric>
#include <stdexcept>
#include <string>

#include "cpu/blocks.h"
#include "cpu/geometry.h"
#include "cpu/isa.h"
#include "cpu/noise.h"
#include "cpu/philox.h"
#include "cpu/pointwise.h"
#include "cpu/warp.h"

namespace py = pybind11;

namespace hepfeed {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

const py::array& contiguous(const py::array& array) {
  require(array.flags() & py::array::c_style, "an array is not in C order");
  return array;
}

const uint8_t* bytes(const py::array& array) { return static_cast<const uint8_t*>(contiguous(array).data()); }

uint8_t* writable(py::array& array) {
  contiguous(array);
  return static_cast<uint8_t*>(array.mutable_data());
}

template <class T>
const T* items(const py::array& array, size_t count) {
  require(py::isinstance<py::array_t<T>>(array), "an array is of another type");
  require(static_cast<size_t>(array.size()) == count, "an array has another size");
  return static_cast<const T*>(contiguous(array).data());
}

template <class T>
T* writable_items(py::array& array, size_t count) {
  items<T>(array, count);
  return static_cast<T*>(array.mutable_data());
}

Type type_of_array(const py::array& array) {
  const auto dtype = array.dtype();
  require(dtype.byteorder() == '=' || dtype.byteorder() == '|',
          "an array is not in the machine's byte order");
  if (dtype.kind() == 'b') return Type::u8;
  const Type type = type_of(std::string(1, dtype.kind()) + std::to_string(dtype.itemsize()));
  require(type != Type::opaque, "an array is not of numbers");
  return type;
}

const int64_t* shape_of(const py::array& array) {
  static_assert(sizeof(py::ssize_t) == sizeof(int64_t), "lengths travel as int64");
  return reinterpret_cast<const int64_t*>(array.shape());
}

size_t events_of(const py::array& array) {
  require(array.ndim() >= 1, "an array has no axis of events");
  return static_cast<size_t>(array.shape(0));
}

size_t axes_of(const py::array& array) { return static_cast<size_t>(array.ndim() - 1); }

bool same_form(const py::array& a, const py::array& b) {
  return a.ndim() == b.ndim() && a.itemsize() == b.itemsize() &&
         std::equal(a.shape(), a.shape() + a.ndim(), b.shape());
}

void window_arrays(const py::array& in, py::array& out, const py::array& origin, const py::array& fill) {
  const size_t events = events_of(in), axes = axes_of(in), item = static_cast<size_t>(in.itemsize());
  require(axes >= 1 && out.ndim() == in.ndim() && events_of(out) == events, "images have other axes");
  require(in.itemsize() == out.itemsize() && fill.nbytes() == in.itemsize(), "items differ in size");
  const auto* from = bytes(in);
  auto* to = writable(out);
  const auto* start = items<int64_t>(origin, events * axes);
  const auto* value = bytes(fill);
  py::gil_scoped_release released;
  window(from, shape_of(in) + 1, to, shape_of(out) + 1, axes, item, events, start, value);
}

void flip_arrays(const py::array& in, py::array& out, const py::array& flags) {
  const size_t events = events_of(in), axes = axes_of(in), item = static_cast<size_t>(in.itemsize());
  require(same_form(in, out), "images differ in form");
  const auto* from = bytes(in);
  auto* to = writable(out);
  const auto* which = items<uint8_t>(flags, events * axes);
  py::gil_scoped_release released;
  flip(from, to, shape_of(in) + 1, axes, item, events, which);
}

void rotate90_arrays(const py::array& in, py::array& out, size_t first, size_t second,
                     const py::array& quarters) {
  const size_t events = events_of(in), axes = axes_of(in);
  require(same_form(in, out), "images differ in form");
  require(first < second && second < axes, "the plane is not of two axes in their order");
  const int64_t* shape = shape_of(in) + 1;
  require(shape[first] == shape[second], "the plane is not square");
  const auto part = [&](size_t from, size_t to) {
    return std::accumulate(shape + from, shape + to, size_t{1},
                           [](size_t product, int64_t n) { return product * static_cast<size_t>(n); });
  };
  const auto item = static_cast<size_t>(in.itemsize());
  const auto* from = bytes(in);
  auto* to = writable(out);
  const auto* turns = items<uint8_t>(quarters, events);
  py::gil_scoped_release released;
  rotate90(from, to, part(0, first), static_cast<size_t>(shape[first]), part(first + 1, second),
           part(second + 1, axes) * item, item, events, turns);
}

void extents_of_array(const py::array& in, uint64_t mask, py::array& out) {
  const size_t events = events_of(in), axes = axes_of(in), item = static_cast<size_t>(in.itemsize());
  require(axes >= 1 && (item == 1 || item == 2 || item == 4 || item == 8),
          "items are not of 1, 2, 4 or 8 bytes");
  const auto* from = bytes(in);
  auto* to = writable_items<int64_t>(out, events * axes * 2);
  py::gil_scoped_release released;
  extents(from, shape_of(in) + 1, axes, item, mask, events, to);
}

// The plan of an image of which `axes` (tuple) are resampled and the rest carried along.
struct Plan {
  Plan(const py::array& in, const py::tuple& axes, const py::array& carried, size_t run) {
    const size_t all = axes_of(in);
    const int64_t* shape = shape_of(in) + 1;
    require(axes.size() >= 1 && axes.size() <= kWarpAxes, "one to three axes are resampled");
    image.axes = axes.size();
    int64_t places = 1;
    for (size_t k = 0; k < axes.size(); ++k) {
      const auto axis = axes[k].cast<size_t>();
      require(axis < all, "an axis is beyond the image");
      image.length[k] = shape[axis];
      image.stride[k] = 1;
      for (size_t a = axis + 1; a < all; ++a) image.stride[k] *= shape[a];
      places *= shape[axis];
    }
    image.items = 1;
    for (size_t a = 0; a < all; ++a) image.items *= shape[a];
    image.carried_count = static_cast<size_t>(carried.size());
    image.carried = items<int64_t>(carried, image.carried_count);
    image.run = run;
    require(image.items == places * static_cast<int64_t>(image.carried_count * run), "the plan misses items");
  }
  Image image{};
};

Map map_of(const Image& image, size_t events, const py::object& matrix, const py::object& field) {
  require(matrix.is_none() != field.is_none(), "a matrix or a field is needed");
  if (!matrix.is_none())
    return {items<double>(py::reinterpret_borrow<py::array>(matrix), events * image.axes * image.axes),
            nullptr};
  size_t places = 1;
  for (size_t a = 0; a < image.axes; ++a) places *= static_cast<size_t>(image.length[a]);
  return {nullptr, items<float>(py::reinterpret_borrow<py::array>(field), events * image.axes * places)};
}

void warp_arrays(const py::array& in, py::array& out, const py::tuple& axes, const py::array& carried,
                 size_t run, const py::object& matrix, const py::object& field, bool linear,
                 const py::array& fill) {
  const size_t events = events_of(in), item = static_cast<size_t>(in.itemsize());
  require(same_form(in, out) && fill.itemsize() == in.itemsize() && fill.size() == 1,
          "images differ in form");
  const Plan plan(in, axes, carried, run);
  const Map map = map_of(plan.image, events, matrix, field);
  const auto* from = bytes(in);
  auto* to = writable(out);
  const auto* value = bytes(fill);
  const Type type = linear ? type_of_array(in) : Type::opaque;
  require(!linear || type == Type::f32 || type == Type::f64, "only floats are interpolated");
  require(linear || item == 1 || item == 2 || item == 4 || item == 8 || item == 16, "items of an odd size");
  require(!linear || type_of_array(fill) == type, "the fill is of another type");
  py::gil_scoped_release released;
  if (!linear)
    warp_nearest(from, to, item, plan.image, events, map, value);
  else if (type == Type::f32)
    warp_linear(reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to), plan.image, events, map,
                static_cast<double>(*reinterpret_cast<const float*>(value)));
  else
    warp_linear(reinterpret_cast<const double*>(from), reinterpret_cast<double*>(to), plan.image, events, map,
                *reinterpret_cast<const double*>(value));
}

// in (fields, *shape) float64 to out of the same shape, float32.
void smooth_arrays(const py::array& in, py::array& out, const py::array& taps, double scale,
                   py::array& scratch) {
  const size_t fields = events_of(in), axes = axes_of(in);
  require(axes >= 1 && axes <= kWarpAxes, "fields have one to three axes");
  const auto all = static_cast<size_t>(in.size());
  const auto count = static_cast<size_t>(taps.size());
  require(count % 2 == 1, "the taps have no middle");
  const int64_t* shape = shape_of(in) + 1;
  const size_t places = fields ? all / fields : 0;
  const auto* from = items<double>(in, all);
  auto* to = writable_items<float>(out, all);
  const auto* weights = items<double>(taps, count);
  auto* room = writable_items<double>(scratch, 2 * places + static_cast<size_t>(shape[axes - 1]) + count - 1);
  py::gil_scoped_release released;
  smooth(from, to, fields, axes, shape, weights, static_cast<int64_t>(count / 2), scale, room);
}

bool reduce_arrays(const py::array& in, py::array& out, const std::string& reduce, const py::array& factor) {
  const size_t events = events_of(in), axes = axes_of(in);
  require(axes >= 1 && out.ndim() == in.ndim() && events_of(out) == events, "images have other axes");
  const auto* factors = items<int64_t>(factor, axes);
  for (size_t a = 0; a < axes; ++a) {
    require(factors[a] >= 1, "a block has no items");
    require(out.shape(static_cast<py::ssize_t>(a + 1)) ==
                (in.shape(static_cast<py::ssize_t>(a + 1)) + factors[a] - 1) / factors[a],
            "the output has another shape");
  }
  require(reduce == "sum" || reduce == "mean" || reduce == "max", "blocks give their sum, mean or max");
  const Reduce how = reduce == "sum" ? Reduce::sum : (reduce == "mean" ? Reduce::mean : Reduce::max);
  const Type type = type_of_array(in);
  const bool half = type == Type::f16, floats = half || type == Type::f32 || type == Type::f64;
  const Type expected = half                  ? Type::f32
                        : floats              ? type
                        : how == Reduce::sum  ? Type::i64
                        : how == Reduce::mean ? Type::f32
                                              : type;
  require(type_of_array(out) == expected, "the output has another type");
  const auto* from = bytes(in);
  auto* to = writable(out);
  py::array_t<double> scratch(2 * in.shape(in.ndim() - 1));
  auto* room = reinterpret_cast<uint8_t*>(scratch.mutable_data());
  py::gil_scoped_release released;
  return reduce_blocks(from, type, to, how, axes, shape_of(in) + 1, factors, events, room);
}

int64_t pointwise_arrays(const py::array& in, py::array& out, const py::array& ops, const py::array& params,
                         size_t run) {
  const auto length = static_cast<size_t>(ops.size());
  require(params.ndim() == 3 && static_cast<size_t>(params.shape(0)) == length && params.shape(1) == 3 &&
              params.shape(2) >= 1 && run >= 1,
          "parameters are (operations, 3, entries)");
  require(in.size() == out.size(), "arrays differ in size");
  const Program program{items<int64_t>(ops, length), length,
                        items<double>(params, static_cast<size_t>(params.size())),
                        static_cast<size_t>(params.shape(2)), run};
  for (size_t o = 0; o < length; ++o)
    require(program.ops[o] >= 0 && program.ops[o] <= static_cast<int64_t>(Op::round), "an unknown operation");
  const Type type = type_of_array(in), out_type = type_of_array(out);
  const auto* from = bytes(in);
  auto* to = writable(out);
  const auto count = static_cast<size_t>(in.size());
  py::gil_scoped_release released;
  return pointwise(from, type, to, out_type, count, program);
}

// Streams of events, whose items are offsets[e] .. offsets[e + 1] - 1 of an array of `total` items.
Events events_at(const py::array& key, const py::array& counters, const py::array& offsets, size_t total) {
  require(offsets.size() >= 1, "offsets are one more than the events");
  const auto count = static_cast<size_t>(offsets.size() - 1);
  const Events events{items<uint64_t>(key, 2), items<uint64_t>(counters, 4 * count),
                      items<int64_t>(offsets, count + 1), count};
  require(events.offsets[0] == 0 && events.offsets[count] == static_cast<int64_t>(total),
          "offsets are not from 0 to the number of items");
  for (size_t e = 0; e < count; ++e) require(events.offsets[e] <= events.offsets[e + 1], "offsets go back");
  return events;
}

void raw_arrays(const py::array& key, const py::array& counters, const py::array& offsets, py::array& out) {
  const auto total = static_cast<size_t>(out.size());
  const Events e = events_at(key, counters, offsets, total);
  auto* to = writable_items<uint64_t>(out, total);
  py::gil_scoped_release released;
  philox_raw(e.key, e.counters, e.offsets, e.count, to);
}

void uniform_arrays(const py::array& key, const py::array& counters, const py::array& offsets, double low,
                    double high, py::array& out) {
  const auto total = static_cast<size_t>(out.size());
  const Events e = events_at(key, counters, offsets, total);
  auto* to = writable_items<double>(out, total);
  py::gil_scoped_release released;
  philox_uniform(e.key, e.counters, e.offsets, e.count, low, high, to);
}

void normal_arrays(const py::array& key, const py::array& counters, const py::array& offsets,
                   py::array& out) {
  const auto total = static_cast<size_t>(out.size());
  const Events e = events_at(key, counters, offsets, total);
  auto* to = writable_items<double>(out, total);
  py::gil_scoped_release released;
  philox_normal(e.key, e.counters, e.offsets, e.count, to);
}

Type float_type(const py::array& out) {
  const Type type = type_of_array(out);
  require(type == Type::f32 || type == Type::f64, "the output is not of float32 or float64");
  return type;
}

void gaussian_arrays(const py::array& in, py::array& out, const py::array& key, const py::array& counters,
                     const py::array& offsets, double sigma, bool relative, bool only_active) {
  require(in.size() == out.size(), "arrays differ in size");
  const Events e = events_at(key, counters, offsets, static_cast<size_t>(in.size()));
  const Type type = type_of_array(in), out_type = float_type(out);
  const auto* from = bytes(in);
  auto* to = writable(out);
  py::gil_scoped_release released;
  gaussian_noise(from, type, to, out_type, e, sigma, relative, only_active);
}

int64_t poisson_arrays(const py::array& in, py::array& out, const py::array& key, const py::array& counters,
                       const py::array& offsets, double scale) {
  require(in.size() == out.size(), "arrays differ in size");
  const Events e = events_at(key, counters, offsets, static_cast<size_t>(in.size()));
  const Type type = type_of_array(in), out_type = float_type(out);
  const auto* from = bytes(in);
  auto* to = writable(out);
  py::gil_scoped_release released;
  return poisson_noise(from, type, to, out_type, e, scale);
}

void drop_items_arrays(const py::array& in, py::array& out, const py::array& key, const py::array& counters,
                       const py::array& offsets, double probability) {
  const auto item = static_cast<size_t>(in.itemsize());
  require(same_form(in, out), "images differ in form");
  require(item == 1 || item == 2 || item == 4 || item == 8, "items are not of 1, 2, 4 or 8 bytes");
  require(probability >= 0 && probability <= 1, "a probability is from 0 to 1");
  const Events e = events_at(key, counters, offsets, static_cast<size_t>(in.size()));
  const auto* from = bytes(in);
  auto* to = writable(out);
  py::gil_scoped_release released;
  drop_items(from, to, item, e, probability);
}

void drop_slices_arrays(const py::array& in, py::array& out, size_t axis, const py::array& keep) {
  require(same_form(in, out), "images differ in form");
  const size_t events = events_of(in), axes = axes_of(in);
  require(axis < axes, "the axis is beyond the image");
  const int64_t* shape = shape_of(in) + 1;
  size_t outer = 1, inner = static_cast<size_t>(in.itemsize());
  for (size_t a = 0; a < axis; ++a) outer *= static_cast<size_t>(shape[a]);
  for (size_t a = axis + 1; a < axes; ++a) inner *= static_cast<size_t>(shape[a]);
  const auto slices = static_cast<size_t>(shape[axis]);
  const auto* from = bytes(in);
  auto* to = writable(out);
  const auto* kept = items<uint8_t>(keep, events * slices);
  py::gil_scoped_release released;
  drop_slices(from, to, events, outer, slices, inner, kept);
}

}  // namespace
}  // namespace hepfeed

PYBIND11_MODULE(_images, m, py::mod_gil_not_used()) {
  using namespace hepfeed;  // NOLINT
  m.doc() = "Native kernels of hepfeed on images, and random numbers of events.";

  m.def("isa", &isa_name,
        "Name of the instruction set in use: 'baseline', 'avx2', 'avx512', 'avx512_bf16' or 'amx'.");
  m.def("set_isa", &set_isa, py::arg("name"), "Restrict these kernels to an instruction set.");

  m.def("window", &window_arrays, py::arg("values"), py::arg("out"), py::arg("origin"), py::arg("fill"),
        "out[e, x] = values[e, x + origin[e]], or fill beyond the image.");
  m.def("flip", &flip_arrays, py::arg("values"), py::arg("out"), py::arg("flags"),
        "Reverse the axes of each event where flags (B, axes) are set.");
  m.def("rotate90", &rotate90_arrays, py::arg("values"), py::arg("out"), py::arg("first"), py::arg("second"),
        py::arg("quarters"), "Turn each event by quarters (B,) of a turn, as numpy.rot90.");
  m.def("extents", &extents_of_array, py::arg("values"), py::arg("mask"), py::arg("out"),
        "The least box (B, axes, 2) around what has bits of the mask.");
  m.def("warp", &warp_arrays, py::arg("values"), py::arg("out"), py::arg("axes"), py::arg("carried"),
        py::arg("run"), py::arg("matrix"), py::arg("field"), py::arg("linear"), py::arg("fill"),
        "Resample axes of each event by a matrix (B, D, D) or a field (B, D, *lengths).");
  m.def("smooth", &smooth_arrays, py::arg("values"), py::arg("out"), py::arg("taps"), py::arg("scale"),
        py::arg("scratch"), "Correlate fields with taps along each axis.");
  m.def("reduce_blocks", &reduce_arrays, py::arg("values"), py::arg("out"), py::arg("reduce"),
        py::arg("factor"), "Sum, mean or maximum of blocks; False where an integer sum does not fit int64.");
  m.def("pointwise", &pointwise_arrays, py::arg("values"), py::arg("out"), py::arg("ops"), py::arg("params"),
        py::arg("run"), "Run a program on every item; the first item that it refuses, or -1.");

  m.def("raw", &raw_arrays, py::arg("key"), py::arg("counters"), py::arg("offsets"), py::arg("out"),
        "Words of the streams of events.");
  m.def("uniform", &uniform_arrays, py::arg("key"), py::arg("counters"), py::arg("offsets"), py::arg("low"),
        py::arg("high"), py::arg("out"), "Uniform numbers of the streams of events.");
  m.def("normal", &normal_arrays, py::arg("key"), py::arg("counters"), py::arg("offsets"), py::arg("out"),
        "Normal numbers of the streams of events.");
  m.def("gaussian_noise", &gaussian_arrays, py::arg("values"), py::arg("out"), py::arg("key"),
        py::arg("counters"), py::arg("offsets"), py::arg("sigma"), py::arg("relative"),
        py::arg("only_active"), "Add normal numbers to every item.");
  m.def("poisson_noise", &poisson_arrays, py::arg("values"), py::arg("out"), py::arg("key"),
        py::arg("counters"), py::arg("offsets"), py::arg("scale"),
        "Poisson numbers of mean value times scale, over scale; the first item refused, or -1.");
  m.def("drop_items", &drop_items_arrays, py::arg("values"), py::arg("out"), py::arg("key"),
        py::arg("counters"), py::arg("offsets"), py::arg("probability"),
        "Zero each item with a probability.");
  m.def("drop_slices", &drop_slices_arrays, py::arg("values"), py::arg("out"), py::arg("axis"),
        py::arg("keep"), "Zero the slices along an axis where keep (B, length) is 0.");
}
