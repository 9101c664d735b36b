// Python bindings of the kernels on sets of sites: pybind11 only, no torch and no NumPy headers.
//
// Arrays are never copied here: one of another dtype, or not in C order, is refused.
//
// All functions may be called from several threads at once, with or without Python's lock; arguments must not
// be changed by others meanwhile.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "cpu/isa.h"
#include "cpu/reaching_map.h"
#include "cpu/sort_sites.h"
#include "cpu/submanifold_map.h"

namespace py = pybind11;

namespace hepfeed {
namespace {

using Ints =
    py::array_t<int32_t, py::array::c_style>;  // of arguments marked noconvert(): checked, not copied

constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max();
constexpr size_t kMostAxes = 16, kMostTaps = 1 << 16;
constexpr int64_t kMostAxisTaps = 1 << 10;

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

Ints new_rows(size_t count) { return Ints(static_cast<py::ssize_t>(count)); }

Ints new_sites(size_t count, size_t dims) {
  return Ints({static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(1 + dims)});
}

SiteRows sites_of(const Ints& indices, const std::vector<int64_t>& shape, size_t events) {
  require(!shape.empty() && shape.size() <= kMostAxes, "a shape has 1 to 16 axes");
  require(indices.ndim() == 2 && static_cast<size_t>(indices.shape(1)) == shape.size() + 1,
          "indices must be (sites, 1 + D)");
  require(indices.shape(0) < kMostRows, "a batch has less than 2^31 - 1 sites");
  require(events <= static_cast<size_t>(kMostRows), "a batch has less than 2^31 events");
  for (const int64_t extent : shape)
    require(extent > 0 && extent <= kMostRows, "an axis has 1 to 2^31 - 1 cells");
  return {indices.data(), static_cast<size_t>(indices.shape(0)), shape.size()};
}

const int32_t* order_of(const Ints& order, const SiteRows& sites) {
  require(order.ndim() == 1 && (order.size() == 0 || static_cast<size_t>(order.size()) == sites.count),
          "order must have no row, or as many as there are sites");
  return order.size() ? order.data() : nullptr;
}

py::tuple bind_sort_sites(const Ints& indices, const std::vector<int64_t>& shape, size_t events,
                          int threads) {
  const SiteRows sites = sites_of(indices, shape, events);
  const Numbering numbering(events, shape);
  const std::unique_ptr<int64_t[]> number(new int64_t[sites.count]);
  SiteFaults faults;
  {
    py::gil_scoped_release released;
    faults = number_sites(sites, nullptr, numbering, number.get(), threads);
  }
  if (faults.outside < sites.count)
    return py::make_tuple(new_rows(0), static_cast<py::ssize_t>(faults.outside), -1);
  if (faults.unsorted == sites.count) return py::make_tuple(new_rows(0), -1, -1);
  Ints order = new_rows(sites.count);
  int32_t* rows = order.mutable_data();
  size_t repeated;
  {
    py::gil_scoped_release released;
    repeated = sort_sites(number.get(), sites.count, numbering, rows, threads);
  }
  if (repeated < sites.count) return py::make_tuple(new_rows(0), rows[repeated - 1], rows[repeated]);
  return py::make_tuple(order, -1, -1);
}

py::tuple bind_unique_sites(const Ints& indices, const std::vector<int64_t>& shape, size_t events,
                            int threads) {
  const SiteRows sites = sites_of(indices, shape, events);
  Ints row_of = new_rows(sites.count);
  int32_t* row_of_out = row_of.mutable_data();
  std::vector<int32_t> first;
  SiteFaults faults;
  {
    py::gil_scoped_release released;
    const Numbering numbering(events, shape);
    const std::unique_ptr<int64_t[]> number(new int64_t[sites.count]);
    faults = number_sites(sites, nullptr, numbering, number.get(), threads);
    if (faults.unsorted == sites.count) {
      std::iota(row_of_out, row_of_out + sites.count, 0);
    } else if (faults.outside == sites.count) {
      const std::unique_ptr<int32_t[]> order(new int32_t[sites.count]);
      sort_sites(number.get(), sites.count, numbering, order.get(), threads);
      first.resize(sites.count);
      first.resize(unique_sites(number.get(), order.get(), sites.count, first.data(), row_of_out));
    }
  }
  if (faults.outside < sites.count)
    return py::make_tuple(indices, row_of, static_cast<py::ssize_t>(faults.outside));
  if (faults.unsorted == sites.count) return py::make_tuple(indices, row_of, -1);
  Ints distinct = new_sites(first.size(), sites.dims);
  int32_t* to = distinct.mutable_data();
  {
    py::gil_scoped_release released;
    const size_t columns = sites.dims + 1;
    for (const int32_t row : first)
      to = std::copy_n(sites.indices + static_cast<size_t>(row) * columns, columns, to);
  }
  return py::make_tuple(distinct, row_of, -1);
}

Ints bind_find_sites(const Ints& indices, const Ints& order, const Ints& queries,
                     const std::vector<int64_t>& shape, size_t events, int threads) {
  const SiteRows sites = sites_of(indices, shape, events), wanted = sites_of(queries, shape, events);
  const int32_t* order_rows = order_of(order, sites);
  Ints found = new_rows(wanted.count);
  int32_t* found_out = found.mutable_data();
  py::gil_scoped_release released;
  const Numbering numbering(events, shape);
  const std::unique_ptr<int64_t[]> number(new int64_t[sites.count]);
  const SiteFaults faults = number_sites(sites, order_rows, numbering, number.get(), threads);
  require(faults.outside == sites.count && faults.unsorted == sites.count,
          "sites must be inside, in order and unique");
  find_sites(number.get(), order_rows, sites.count, wanted, numbering, found_out, threads);
  return found;
}

void check(const Convolution& c, bool submanifold) {
  const size_t dims = c.dims();
  require(c.out_shape.size() == dims && c.kernel.size() == dims && c.stride.size() == dims &&
              c.padding.size() == dims && c.dilation.size() == dims,
          "a convolution has one number of each kind an axis");
  size_t taps = 1;
  for (size_t d = 0; d < dims; ++d) {
    require(c.kernel[d] > 0 && c.stride[d] > 0 && c.padding[d] >= 0 && c.dilation[d] > 0,
            "sizes are positive");
    require(c.out_shape[d] > 0 &&
                std::max({c.out_shape[d], c.stride[d], c.padding[d], c.dilation[d]}) <= kMostRows,
            "sizes are below 2^31");
    require(c.kernel[d] <= kMostAxisTaps && (taps *= static_cast<size_t>(c.kernel[d])) <= kMostTaps,
            "a kernel has up to 2^10 taps an axis and 2^16 in all");
    if (submanifold)
      require(c.kernel[d] % 2 == 1 && c.stride[d] == 1 && !c.transposed && c.out_shape[d] == c.shape[d] &&
                  c.padding[d] == c.dilation[d] * (c.kernel[d] / 2),
              "a submanifold convolution is centred");
  }
}

// Arrays of a map, which its pairs have been written to: (in_maps, out_maps, offsets, back_in, back_out).
template <class Map>
py::tuple arrays_of(const Map& map, bool has_order, int threads) {
  const std::vector<int64_t>& offsets = map.offsets();
  py::array_t<int64_t> offsets_out(static_cast<py::ssize_t>(offsets.size()));
  std::copy(offsets.begin(), offsets.end(), offsets_out.mutable_data());
  const auto pairs = static_cast<size_t>(offsets.back()), back = has_order ? pairs : 0;
  Ints in = new_rows(pairs), out = new_rows(pairs), back_in = new_rows(back), back_out = new_rows(back);
  const PairArrays arrays{in.mutable_data(), out.mutable_data(), has_order ? back_in.mutable_data() : nullptr,
                          has_order ? back_out.mutable_data() : nullptr};
  {
    py::gil_scoped_release released;
    map.write(arrays, threads);
  }
  return py::make_tuple(in, out, offsets_out, back_in, back_out);
}

py::tuple bind_kernel_map(const Ints& indices, const Ints& order, size_t events, std::vector<int64_t> shape,
                          std::vector<int64_t> out_shape, std::vector<int64_t> kernel,
                          std::vector<int64_t> stride, std::vector<int64_t> padding,
                          std::vector<int64_t> dilation, bool submanifold, bool transposed, int threads) {
  const SiteRows sites = sites_of(indices, shape, events);
  const int32_t* order_rows = order_of(order, sites);
  const Convolution convolution{std::move(shape),  std::move(out_shape), std::move(kernel),
                                std::move(stride), std::move(padding),   std::move(dilation),
                                transposed};
  check(convolution, submanifold);
  if (submanifold) {
    std::unique_ptr<SubmanifoldMap> map;
    {
      py::gil_scoped_release released;
      map = std::make_unique<SubmanifoldMap>(convolution, sites, order_rows, events, threads);
    }
    return arrays_of(*map, order_rows != nullptr, threads) + py::make_tuple(indices);
  }
  std::unique_ptr<ReachingMap> map;
  {
    py::gil_scoped_release released;
    map = std::make_unique<ReachingMap>(convolution, sites, order_rows, events, threads);
  }
  Ints outputs = new_sites(map->outputs(), sites.dims);
  int32_t* outputs_out = outputs.mutable_data();
  {
    py::gil_scoped_release released;
    map->write_outputs(outputs_out, threads);
  }
  return arrays_of(*map, order_rows != nullptr, threads) + py::make_tuple(outputs);
}

}  // namespace
}  // namespace hepfeed

PYBIND11_MODULE(_sites, m, py::mod_gil_not_used()) {
  using namespace hepfeed;  // NOLINT
  m.doc() = "Native kernels of hepfeed on sets of sites.";

  m.def("isa", &isa_name, "Name of the instruction set in use: 'baseline', 'avx2' or 'avx512'.");
  m.def("set_isa", &set_isa, py::arg("name"), "Restrict the kernels to an instruction set.");

  m.def("sort_sites", &bind_sort_sites, py::arg("indices").noconvert(), py::arg("shape"), py::arg("events"),
        py::arg("threads") = 1,
        "(order, row, row): rows by their sites, none where they lie so; a row that is outside, or two of "
        "equal sites, or -1.");
  m.def("unique_sites", &bind_unique_sites, py::arg("indices").noconvert(), py::arg("shape"),
        py::arg("events"), py::arg("threads") = 1,
        "(sites, row of each site, row): distinct sites, sorted; a row that is outside, or -1.");
  m.def("find_sites", &bind_find_sites, py::arg("indices").noconvert(), py::arg("order").noconvert(),
        py::arg("queries").noconvert(), py::arg("shape"), py::arg("events"), py::arg("threads") = 1,
        "Row of each queried site, or -1.");
  m.def("kernel_map", &bind_kernel_map, py::arg("indices").noconvert(), py::arg("order").noconvert(),
        py::arg("events"), py::arg("shape"), py::arg("out_shape"), py::arg("kernel"), py::arg("stride"),
        py::arg("padding"), py::arg("dilation"), py::arg("submanifold"), py::arg("transposed"),
        py::arg("threads") = 1,
        "(in_maps, out_maps, offsets, back_in, back_out, output sites) of a sparse convolution.");
}
