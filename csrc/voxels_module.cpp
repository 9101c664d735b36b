// Python bindings of the kernels on voxels: pybind11 only, no torch and no NumPy headers.
//
// Arrays are never copied here: one of another dtype, or not in C order, is refused.
//
// All functions may be called from several threads at once, with or without Python's lock; arguments must not
// be changed by others meanwhile, and outputs must not overlap.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "cpu/cells.h"
#include "cpu/densify.h"
#include "cpu/group.h"
#include "cpu/histogram.h"
#include "cpu/isa.h"
#include "cpu/labels.h"
#include "cpu/move_sites.h"
#include "cpu/neighbours.h"
#include "cpu/reduce.h"
#include "cpu/sparsify.h"

namespace py = pybind11;

namespace hepfeed {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // of arguments marked noconvert(): checked, not copied

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

Type type_of(const py::dtype& dtype) {
  require(dtype.byteorder() == '=' || dtype.byteorder() == '|',
          "an array is not in the machine's byte order");
  const Type type = hepfeed::type_of(std::string(1, dtype.kind()) + std::to_string(dtype.itemsize()));
  require(type != Type::opaque, "an array does not hold numbers");
  return type;
}

template <class T>
Array<T> new_array(const std::vector<py::ssize_t>& shape) {
  return Array<T>(shape);
}

// The first `count` rows, as a view.
template <class T>
py::object head(const Array<T>& array, size_t count) {
  return array[py::slice(0, static_cast<py::ssize_t>(count), 1)];
}

// Checks offsets of events; returns how many rows they cover.
size_t rows_of(const Array<int64_t>& offsets) {
  require(offsets.ndim() == 1 && offsets.size() >= 1 && offsets.data()[0] == 0, "offsets must begin with 0");
  for (py::ssize_t e = 1; e < offsets.size(); ++e)
    require(offsets.data()[e] >= offsets.data()[e - 1], "offsets must not fall");
  return static_cast<size_t>(offsets.data()[offsets.size() - 1]);
}

uint64_t cells_of(const std::vector<int64_t>& shape) {
  uint64_t cells = 1;
  for (const int64_t extent : shape) {
    require(extent > 0 && extent <= std::numeric_limits<int32_t>::max(),
            "a grid has 1 to 2^31 - 1 cells an axis");
    require(
        !__builtin_mul_overflow(cells, static_cast<uint64_t>(extent), &cells) && cells < uint64_t{1} << 62,
        "a grid has less than 2^62 cells");
  }
  return cells;
}

Array<int64_t> bind_cells_of_sites(const Array<int64_t>& coords, const std::vector<int64_t>& shape,
                                   const std::optional<Array<bool>>& keep) {
  require(coords.ndim() == 2 && coords.shape(1) == static_cast<py::ssize_t>(shape.size()),
          "coords must have a column for each axis of the shape");
  require(!keep || (keep->ndim() == 1 && keep->size() == coords.shape(0)),
          "keep must have an item for each site");
  cells_of(shape);
  auto cell = new_array<int64_t>({coords.shape(0)});
  int64_t* out = cell.mutable_data();
  const uint8_t* kept = keep ? reinterpret_cast<const uint8_t*>(keep->data()) : nullptr;
  py::gil_scoped_release released;
  cells_of_sites(coords.data(), static_cast<size_t>(coords.shape(0)), shape.size(), shape.data(), kept, out);
  return cell;
}

py::tuple bind_move_sites(const Array<int32_t>& indices, const py::array& features,
                          const std::optional<Array<bool>>& reversed,
                          const std::optional<Array<int64_t>>& origin, int64_t events,
                          const std::vector<int64_t>& lengths, const std::vector<int64_t>& shape) {
  const auto axes = static_cast<py::ssize_t>(shape.size());
  require(indices.ndim() == 2 && indices.shape(1) == 1 + axes && lengths.size() == shape.size(),
          "indices, lengths and shape differ in axes");
  cells_of(lengths);
  cells_of(shape);
  require((features.flags() & py::array::c_style) && features.ndim() == 2 &&
              features.shape(0) == indices.shape(0),
          "features must be in C order, with a row for each site");
  const auto fits = [&](const auto& array) {
    return !array || (array->ndim() == 2 && array->shape(0) == events && array->shape(1) == axes);
  };
  require(fits(reversed) && fits(origin), "reversed and origin must be (events, axes)");
  const auto n = static_cast<size_t>(indices.shape(0));
  require(n < std::numeric_limits<uint32_t>::max(), "a batch has less than 2^32 - 1 sites");
  auto moved = new_array<int32_t>({indices.shape(0), indices.shape(1)});
  py::array kept_features(features.dtype(), std::vector<py::ssize_t>{features.shape(0), features.shape(1)});
  const Sites sites{indices.data(), static_cast<const uint8_t*>(features.data()), n, shape.size(),
                    static_cast<size_t>(features.itemsize() * features.shape(1))};
  int32_t* indices_out = moved.mutable_data();
  auto* features_out = static_cast<uint8_t*>(kept_features.mutable_data());
  const auto* turned = reversed ? reinterpret_cast<const uint8_t*>(reversed->data()) : nullptr;
  const int64_t* start = origin ? origin->data() : nullptr;
  size_t kept;
  {
    py::gil_scoped_release released;
    kept = move_sites(sites, events, turned, start, lengths.data(), shape.data(), indices_out, features_out);
  }
  const py::slice rows(0, static_cast<py::ssize_t>(kept), 1);
  return py::make_tuple(moved[rows], kept_features[rows]);
}

py::tuple bind_group_rows(const Array<int64_t>& cell, const Array<int64_t>& offsets, uint64_t cells) {
  const size_t rows = rows_of(offsets), events = static_cast<size_t>(offsets.size() - 1);
  require(cell.ndim() == 1 && static_cast<size_t>(cell.size()) == rows,
          "cell must have an item for each row");
  require(rows < std::numeric_limits<uint32_t>::max(), "a batch has less than 2^32 - 1 rows");
  require(cells < uint64_t{1} << 62, "a grid has less than 2^62 cells");
  const auto n = static_cast<py::ssize_t>(rows);
  auto order = new_array<uint32_t>({n});
  auto starts = new_array<int64_t>({n + 1}), group_cell = new_array<int64_t>({n});
  auto group_offsets = new_array<int64_t>({offsets.size()});
  uint32_t* order_out = order.mutable_data();
  int64_t *starts_out = starts.mutable_data(), *cell_out = group_cell.mutable_data();
  int64_t* offsets_out = group_offsets.mutable_data();
  size_t groups;
  {
    py::gil_scoped_release released;
    groups =
        group_rows(cell.data(), offsets.data(), events, cells, order_out, starts_out, cell_out, offsets_out);
  }
  const auto kept = static_cast<size_t>(starts.data()[groups]);
  return py::make_tuple(head(order, kept), head(starts, groups + 1), head(group_cell, groups), group_offsets);
}

// What group_rows returned, as arguments of others.
size_t groups_of(const Array<uint32_t>& order, const Array<int64_t>& starts, size_t rows) {
  const size_t groups = rows_of(starts) == static_cast<size_t>(order.size())
                            ? static_cast<size_t>(starts.size() - 1)
                            : throw std::invalid_argument("starts and order differ in rows");
  for (size_t g = 0; g < groups; ++g) require(starts.data()[g] < starts.data()[g + 1], "a group has no row");
  for (py::ssize_t i = 0; i < order.size(); ++i)
    require(order.data()[i] < rows, "order has a row beyond the input");
  return groups;
}

Array<int64_t> bind_group_of_rows(const Array<uint32_t>& order, const Array<int64_t>& starts,
                                  const Array<int64_t>& group_offsets, size_t rows) {
  const size_t groups = groups_of(order, starts, rows);
  require(rows_of(group_offsets) == groups, "starts and group offsets differ in groups");
  auto group = new_array<int64_t>({static_cast<py::ssize_t>(rows)});
  int64_t* out = group.mutable_data();
  const auto events = static_cast<size_t>(group_offsets.size() - 1);
  py::gil_scoped_release released;
  group_of_rows(order.data(), starts.data(), group_offsets.data(), events, rows, out);
  return group;
}

Reduction reduction_of(const std::string& name) {
  if (name == "sum") return Reduction::sum;
  if (name == "mean") return Reduction::mean;
  require(name == "max", "a reduction is 'sum', 'mean' or 'max'");
  return Reduction::max;
}

py::ssize_t bind_reduce_groups(const py::array& features, const Array<uint32_t>& order,
                               const Array<int64_t>& starts, const std::string& reduction, py::array& out,
                               size_t column) {
  require(features.ndim() == 2 && (features.flags() & py::array::c_style),
          "features must be (rows, C) in C order");
  require(out.ndim() == 2 && (out.flags() & py::array::c_style), "out must be (groups, C) in C order");
  const size_t groups = groups_of(order, starts, static_cast<size_t>(features.shape(0)));
  const auto columns = static_cast<size_t>(features.shape(1)), out_stride = static_cast<size_t>(out.shape(1));
  require(static_cast<size_t>(out.shape(0)) == groups && column + columns <= out_stride,
          "out must have a row for each group and a column for each feature");
  const Reduction how = reduction_of(reduction);
  const Columns in{features.data(), type_of(features.dtype()), columns, columns};
  const Type out_type = type_of(out.dtype());
  auto* to = static_cast<uint8_t*>(out.mutable_data()) + column * static_cast<size_t>(out.itemsize());
  size_t first_bad;
  {
    py::gil_scoped_release released;
    first_bad = reduce_groups(in, order.data(), starts.data(), groups, how, to, out_type, out_stride);
  }
  return first_bad == groups ? -1 : static_cast<py::ssize_t>(first_bad);
}

Array<int32_t> bind_sites_of_cells(const Array<int64_t>& cell, const Array<int64_t>& offsets,
                                   const std::vector<int64_t>& shape) {
  const size_t rows = rows_of(offsets);
  require(cell.ndim() == 1 && static_cast<size_t>(cell.size()) == rows,
          "cell must have an item for each row");
  require(!shape.empty(), "a grid has one axis or more");
  const auto cells = static_cast<int64_t>(cells_of(shape));
  for (size_t i = 0; i < rows; ++i)
    require(cell.data()[i] >= 0 && cell.data()[i] < cells, "a cell lies beyond the grid");
  auto indices =
      new_array<int32_t>({static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(1 + shape.size())});
  int32_t* out = indices.mutable_data();
  py::gil_scoped_release released;
  sites_of_cells(cell.data(), offsets.data(), static_cast<size_t>(offsets.size() - 1), shape.data(),
                 shape.size(), out);
  return indices;
}

// Each axis is (x, low, size, count), x being (rows,) with any stride, or (x, edges, last_closed).
py::tuple bind_cells_of_points(const py::list& axes, bool clip) {
  std::vector<Axis> all;
  std::vector<int64_t> counts;
  size_t rows = 0;
  const py::tuple fixed(axes);  // keeps the arrays, whatever another thread does with the list
  for (const auto& item : fixed) {
    const auto given = item.cast<py::tuple>();
    const auto x = given[0].cast<py::array>();
    require(x.ndim() == 1 && (all.empty() || static_cast<size_t>(x.shape(0)) == rows),
            "each axis has one coordinate a point");
    rows = static_cast<size_t>(x.shape(0));
    const py::ssize_t stride = rows > 1 ? x.strides(0) : x.itemsize();
    require(stride >= 0 && stride % x.itemsize() == 0, "coordinates lie whole items apart");
    Axis axis{x.data(), type_of(x.dtype()), static_cast<size_t>(stride / x.itemsize()), 0, 1, 0, nullptr,
              false};
    if (given.size() == 3) {
      require(Array<double>::check_(given[1]), "edges must be float64 in C order");
      const auto edges = given[1].cast<Array<double>>();
      require(edges.ndim() == 1 && edges.size() >= 2, "an axis has two edges or more");
      axis.edges = edges.data();
      axis.count = edges.size() - 1;
      axis.last_closed = given[2].cast<bool>();
    } else {
      axis.low = given[1].cast<double>();
      axis.size = given[2].cast<double>();
      axis.count = given[3].cast<int64_t>();
    }
    all.push_back(axis);
    counts.push_back(axis.count);
  }
  require(!all.empty(), "a grid has one axis or more");
  cells_of(counts);
  auto cell = new_array<int64_t>({static_cast<py::ssize_t>(rows)});
  int64_t* out = cell.mutable_data();
  size_t first_bad;
  {
    py::gil_scoped_release released;
    first_bad = cells_of_points(all.data(), all.size(), rows, clip ? Outside::clip : Outside::drop, out);
  }
  return py::make_tuple(cell, first_bad == rows ? -1 : static_cast<py::ssize_t>(first_bad));
}

Array<int64_t> bind_labels(const Array<int64_t>& label, const std::optional<Array<double>>& weight,
                           const Array<uint32_t>& order, const Array<int64_t>& starts) {
  require(label.ndim() == 1 && (!weight || (weight->ndim() == 1 && weight->size() == label.size())),
          "labels and weights must have an item for each row");
  const size_t groups = groups_of(order, starts, static_cast<size_t>(label.size()));
  auto labels = new_array<int64_t>({static_cast<py::ssize_t>(groups)});
  int64_t* out = labels.mutable_data();
  py::gil_scoped_release released;
  if (weight) {
    labels_of_largest(label.data(), weight->data(), order.data(), starts.data(), groups, out);
  } else {
    int64_t longest = 0;
    for (size_t g = 0; g < groups; ++g) longest = std::max(longest, starts.data()[g + 1] - starts.data()[g]);
    std::vector<int64_t> scratch(static_cast<size_t>(longest));
    labels_of_majority(label.data(), order.data(), starts.data(), groups, scratch.data(), out);
  }
  return labels;
}

Array<float> bind_histogram(const Array<int64_t>& cell, const std::optional<py::array>& weight,
                            const Array<int64_t>& offsets, const std::vector<int64_t>& shape) {
  const size_t rows = rows_of(offsets), events = static_cast<size_t>(offsets.size() - 1);
  require(cell.ndim() == 1 && static_cast<size_t>(cell.size()) == rows,
          "cell must have an item for each row");
  require(!weight || (weight->ndim() == 1 && weight->size() == cell.size() &&
                      (weight->flags() & py::array::c_style)),
          "weight must have an item for each row, in C order");
  const uint64_t cells = cells_of(shape);
  for (size_t i = 0; i < rows; ++i)
    require(cell.data()[i] < static_cast<int64_t>(cells), "a cell lies beyond the grid");
  std::vector<py::ssize_t> whole{static_cast<py::ssize_t>(events)};
  whole.insert(whole.end(), shape.begin(), shape.end());
  auto sums = new_array<float>(whole);
  float* out = sums.mutable_data();
  const void* values = weight ? weight->data() : nullptr;
  const Type type = weight ? type_of(weight->dtype()) : Type::f64;
  py::gil_scoped_release released;
  std::vector<double> scratch(cells);
  histogram(cell.data(), values, type, offsets.data(), events, cells, scratch.data(), out);
  return sums;
}

// Memory that grows without being cleared or, where the system can move pages, copied.
template <class T>
class Growing {
 public:
  ~Growing() { std::free(data_); }
  Growing() = default;
  Growing(const Growing&) = delete;
  Growing& operator=(const Growing&) = delete;

  void reserve(size_t items) {
    auto* moved = static_cast<T*>(std::realloc(data_, std::max<size_t>(items, 1) * sizeof(T)));
    if (!moved) throw std::bad_alloc();
    data_ = moved;
  }
  T* data() { return data_; }

 private:
  T* data_ = nullptr;
};

template <class Feature>
py::tuple sparse_of(const Images& images, Type feature_type, const std::vector<int64_t>& shape, size_t events,
                    double threshold, bool absolute) {
  Growing<int64_t> site;
  Growing<Feature> features;
  std::vector<int64_t> offsets(events + 1);
  size_t found = 0, next = 0, room = 4 * kSparsifyBlock;
  const size_t sites = images.outer * images.inner;
  {
    py::gil_scoped_release released;
    site.reserve(room);
    features.reserve(room * images.channels);
    while (next < sites) {
      if (room - found < kSparsifyBlock) {
        room *= 2;
        site.reserve(room);
        features.reserve(room * images.channels);
      }
      found += sparsify(images, threshold, absolute, &next, room - found, site.data() + found,
                        features.data() + found * images.channels, feature_type);
    }
    const size_t cells = events ? sites / events : 1;
    size_t n = 0;
    for (size_t e = 0; e < events; ++e) {
      offsets[e] = static_cast<int64_t>(n);
      const auto first = static_cast<int64_t>(e * cells), last = static_cast<int64_t>((e + 1) * cells);
      for (; n < found && site.data()[n] < last; ++n) site.data()[n] -= first;
    }
    offsets[events] = static_cast<int64_t>(n);
  }
  const auto rows = static_cast<py::ssize_t>(found);
  auto indices = new_array<int32_t>({rows, static_cast<py::ssize_t>(1 + shape.size())});
  auto values = new_array<Feature>({rows, static_cast<py::ssize_t>(images.channels)});
  int32_t* indices_out = indices.mutable_data();
  Feature* values_out = values.mutable_data();
  {
    py::gil_scoped_release released;
    sites_of_cells(site.data(), offsets.data(), events, shape.data(), shape.size(), indices_out);
    std::memcpy(values_out, features.data(), found * images.channels * sizeof(Feature));
  }
  return py::make_tuple(indices, values);
}

// The axes of one event before and after that of the channels, or all of them after it.
Images images_of(const void* data, Type type, size_t events, const std::vector<int64_t>& shape,
                 size_t channels, size_t channel_axis, bool has_channels) {
  Images images{data, type, has_channels ? events : 1, channels, has_channels ? 1 : events};
  for (size_t d = 0; d < shape.size(); ++d)
    (has_channels && d < channel_axis ? images.outer : images.inner) *= static_cast<size_t>(shape[d]);
  return images;
}

// Splits the shape of dense images (events, ...) into events, channels and the spatial shape.
struct Layout {
  Layout(const py::array& images, std::optional<size_t> channel_axis) {
    require(images.ndim() >= 2 && (images.flags() & py::array::c_style),
            "images must be (events, ...) in C order");
    require(!channel_axis || *channel_axis + 1 < static_cast<size_t>(images.ndim()),
            "there is no such channel axis");
    events = static_cast<size_t>(images.shape(0));
    for (py::ssize_t axis = 1; axis < images.ndim(); ++axis) {
      if (channel_axis && axis == static_cast<py::ssize_t>(*channel_axis) + 1)
        channels = static_cast<size_t>(images.shape(axis));
      else
        shape.push_back(images.shape(axis));
    }
    require(!shape.empty(), "images have a spatial axis");
    cells_of(shape);
  }
  size_t events = 0, channels = 1;
  std::vector<int64_t> shape;
};

py::tuple bind_sparsify(const py::array& dense, double threshold, bool absolute,
                        std::optional<size_t> channel_axis, bool wide) {
  const Layout layout(dense, channel_axis);
  require(layout.channels > 0, "images have a channel");
  const Images images = images_of(dense.data(), type_of(dense.dtype()), layout.events, layout.shape,
                                  layout.channels, channel_axis.value_or(0), channel_axis.has_value());
  return wide ? sparse_of<double>(images, Type::f64, layout.shape, layout.events, threshold, absolute)
              : sparse_of<float>(images, Type::f32, layout.shape, layout.events, threshold, absolute);
}

py::ssize_t bind_densify(const Array<int32_t>& indices, const py::array& features, py::array& dense,
                         std::optional<size_t> channel_axis) {
  const Layout layout(dense, channel_axis);
  require(features.ndim() == 2 && (features.flags() & py::array::c_style) &&
              static_cast<size_t>(features.shape(1)) == layout.channels,
          "features must be (sites, channels) in C order");
  require(indices.ndim() == 2 && indices.shape(0) == features.shape(0) &&
              static_cast<size_t>(indices.shape(1)) == layout.shape.size() + 1,
          "indices must be (sites, 1 + D)");
  require(features.itemsize() == dense.itemsize(), "features and images have the same type");
  void* out = dense.mutable_data();
  const auto sites = static_cast<size_t>(indices.shape(0)), item = static_cast<size_t>(dense.itemsize());
  const size_t inner = images_of(nullptr, Type::f32, layout.events, layout.shape, layout.channels,
                                 channel_axis.value_or(0), channel_axis.has_value())
                           .inner;
  size_t first_bad;
  {
    py::gil_scoped_release released;
    first_bad = densify(indices.data(), features.data(), sites, layout.shape.data(), layout.shape.size(),
                        layout.events, layout.channels, inner, item, out);
  }
  return first_bad == sites ? -1 : static_cast<py::ssize_t>(first_bad);
}

py::tuple bind_edges(const Array<double>& points, const Array<int64_t>& offsets, int64_t most,
                     double radius_squared, bool loop) {
  const size_t rows = rows_of(offsets), events = static_cast<size_t>(offsets.size() - 1);
  require(points.ndim() == 2 && static_cast<size_t>(points.shape(0)) == rows && points.shape(1) > 0,
          "points must be (rows, D)");
  require(rows < std::numeric_limits<uint32_t>::max(), "a batch has less than 2^32 - 1 points");
  const auto dims = static_cast<size_t>(points.shape(1));
  const size_t limit = most < 0 ? kNoLimit : static_cast<size_t>(most);
  auto edge_offsets = new_array<int64_t>({offsets.size()});
  int64_t* offsets_out = edge_offsets.mutable_data();
  Edges edges;
  {
    py::gil_scoped_release released;
    Neighbours neighbours;
    offsets_out[0] = 0;
    for (size_t e = 0; e < events; ++e) {
      const auto first = static_cast<size_t>(offsets.data()[e]),
                 last = static_cast<size_t>(offsets.data()[e + 1]);
      add_edges(neighbours, points.data() + first * dims, first, last - first, dims, limit, radius_squared,
                loop, edges);
      offsets_out[e + 1] = static_cast<int64_t>(edges.source.size());
    }
  }
  const size_t count = edges.source.size();
  auto index = new_array<int64_t>({2, static_cast<py::ssize_t>(count)});
  int64_t* out = index.mutable_data();
  {
    py::gil_scoped_release released;
    std::copy(edges.source.begin(), edges.source.end(), out);
    std::copy(edges.target.begin(), edges.target.end(), out + count);
  }
  return py::make_tuple(index, edge_offsets);
}

}  // namespace
}  // namespace hepfeed

PYBIND11_MODULE(_voxels, m, py::mod_gil_not_used()) {
  using namespace hepfeed;  // NOLINT
  m.doc() = "Native kernels of hepfeed between points, voxels, images and graphs.";

  m.def("move_sites", &bind_move_sites, py::arg("indices").noconvert(), py::arg("features"), py::kw_only(),
        py::arg("reversed").noconvert() = py::none(), py::arg("origin").noconvert() = py::none(),
        py::arg("events"), py::arg("lengths"), py::arg("shape"),
        "Sites with reversed and shifted coordinates, those within the shape, sorted: (indices, features).");
  m.def("isa", &isa_name,
        "Name of the instruction set in use: 'baseline', 'avx2', 'avx512', 'avx512_bf16' or 'amx'.");
  m.def("set_isa", &set_isa, py::arg("name"), "Restrict the kernels to an instruction set.");

  m.def("cells_of_sites", &bind_cells_of_sites, py::arg("coords").noconvert(), py::arg("shape"),
        py::arg("keep").noconvert() = py::none(), "Cell numbers of sites; -1 outside or where not kept.");
  m.def("group_rows", &bind_group_rows, py::arg("cell").noconvert(), py::arg("offsets").noconvert(),
        py::arg("cells"),
        "Rows by (event, cell): (order, starts, cell of each group, groups of each event).");
  m.def("group_of_rows", &bind_group_of_rows, py::arg("order").noconvert(), py::arg("starts").noconvert(),
        py::arg("group_offsets").noconvert(), py::arg("rows"), "Group of each row within its event, or -1.");
  m.def("reduce_groups", &bind_reduce_groups, py::arg("features").noconvert(), py::arg("order").noconvert(),
        py::arg("starts").noconvert(), py::arg("reduction"), py::arg("out").noconvert(),
        py::arg("column") = 0,
        "Reduce rows to their groups, into out[:, column:]; returns the first group that overflows, or -1.");
  m.def("sites_of_cells", &bind_sites_of_cells, py::arg("cell").noconvert(), py::arg("offsets").noconvert(),
        py::arg("shape"), "Indices (event, coordinates) of cell numbers.");

  m.def("cells_of_points", &bind_cells_of_points, py::arg("axes"), py::arg("clip"),
        "Cell numbers of points, -1 outside; and the first point with a NaN, or -1.");
  m.def("labels", &bind_labels, py::arg("label").noconvert(), py::arg("weight").noconvert().none(true),
        py::arg("order").noconvert(), py::arg("starts").noconvert(),
        "Label of each group: of its row with the largest weight, or without weights of most of its rows.");
  m.def("histogram", &bind_histogram, py::arg("cell").noconvert(), py::arg("weight").noconvert().none(true),
        py::arg("offsets").noconvert(), py::arg("shape"),
        "Sums of weights, or numbers of points, in dense grids.");
  m.def("sparsify", &bind_sparsify, py::arg("dense").noconvert(), py::arg("threshold"), py::arg("absolute"),
        py::arg("channel_axis"), py::arg("wide"), "(indices, features) of the sites beyond a threshold.");
  m.def("densify", &bind_densify, py::arg("indices").noconvert(), py::arg("features").noconvert(),
        py::arg("dense").noconvert(), py::arg("channel_axis"),
        "Dense images of sites; returns the first site that is outside of them or not sorted, or -1.");
  m.def("edges", &bind_edges, py::arg("points").noconvert(), py::arg("offsets").noconvert(), py::arg("most"),
        py::arg("radius_squared"), py::arg("loop"),
        "(edge index, edges of each event) of the nearest points.");
}
