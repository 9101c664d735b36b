// Bindings of the kernels on sets of sites and of kernel maps.
//
// `grid` is (events, shape, widths), `taps` is (size, stride, padding, dilation, transposed), `sites` are
// (indices, order, count) and `places` the addresses of in_maps, out_maps, back_in and back_out.
#include <array>
#include <tuple>
#include <vector>

#include "cuda/address.h"
#include "cuda/bindings.h"
#include "cuda/kernel_map.h"
#include "cuda/sites.h"

namespace hepfeed::device {
namespace {

using Released = py::call_guard<py::gil_scoped_release>;
using Numbers = std::vector<int64_t>;
using Grid = std::tuple<int64_t, Numbers, Numbers>;
using Taps = std::tuple<Numbers, Numbers, Numbers, Numbers, bool>;
using Rows = std::tuple<uintptr_t, uintptr_t, int32_t>;

SiteGrid read(const Grid& grid) { return std::apply(&grid_of, grid); }
KernelTaps read(const Taps& taps) { return std::apply(&taps_of, taps); }
SiteRows read(const Rows& rows) {
  return {at<const int32_t>(std::get<0>(rows)), at<const int32_t>(std::get<1>(rows)), std::get<2>(rows)};
}

// Keys of the outputs are those of the inputs, unless they are given.
Neighbourhood neighbourhood_of(uintptr_t keys, uintptr_t outputs, int32_t sites) {
  return {at<const int64_t>(keys), at<const int64_t>(outputs ? outputs : keys), sites, outputs == 0};
}

template <class Point, class Event>
void def_cells(py::module_& module, const char* name) {
  module.def(
      name,
      [](uintptr_t points, uintptr_t events, int64_t count, int32_t dims, int32_t farthest, uintptr_t cells,
         uintptr_t faults, uintptr_t stream) {
        cells_of_points(at<const Point>(points), at<const Event>(events), count, dims, farthest,
                        at<int32_t>(cells), at<uint64_t>(faults), at<void>(stream));
      },
      py::arg("points"), py::arg("events"), py::arg("count"), py::arg("dims"), py::arg("farthest"),
      py::arg("cells"), py::arg("faults"), py::arg("stream"), Released());
}

void bind_sets(py::module_& module) {
  module.def(
      "number_sites",
      [](const Rows& sites, const Grid& grid, uintptr_t keys, uintptr_t faults, uintptr_t stream) {
        number_sites(read(sites), read(grid), at<int64_t>(keys), at<uint64_t>(faults), at<void>(stream));
      },
      py::arg("sites"), py::arg("grid"), py::arg("keys"), py::arg("faults"), py::arg("stream"), Released());
  module.def(
      "find_repeats",
      [](uintptr_t keys, int64_t count, uintptr_t faults, uintptr_t stream) {
        find_repeats(at<const int64_t>(keys), count, at<uint64_t>(faults), at<void>(stream));
      },
      py::arg("keys"), py::arg("count"), py::arg("faults"), py::arg("stream"), Released());
  module.def(
      "mark_distinct",
      [](uintptr_t keys, int64_t count, uintptr_t is_first, uintptr_t stream) {
        mark_distinct(at<const int64_t>(keys), count, at<int32_t>(is_first), at<void>(stream));
      },
      py::arg("keys"), py::arg("count"), py::arg("is_first"), py::arg("stream"), Released());
  module.def(
      "write_distinct",
      [](uintptr_t keys, uintptr_t firsts, uintptr_t order, int64_t count, const Grid& grid, uintptr_t row_of,
         uintptr_t sites, uintptr_t stream) {
        write_distinct(at<const int64_t>(keys), at<const int32_t>(firsts), at<const int32_t>(order), count,
                       read(grid), at<int32_t>(row_of), at<int32_t>(sites), at<void>(stream));
      },
      py::arg("keys"), py::arg("firsts"), py::arg("order"), py::arg("count"), py::arg("grid"),
      py::arg("row_of"), py::arg("sites"), py::arg("stream"), Released());
  module.def(
      "find_sites",
      [](uintptr_t keys, const Rows& sites, uintptr_t queries, int64_t count, const Grid& grid,
         uintptr_t found, uintptr_t stream) {
        find_sites(at<const int64_t>(keys), read(sites), at<const int32_t>(queries), count, read(grid),
                   at<int32_t>(found), at<void>(stream));
      },
      py::arg("keys"), py::arg("sites"), py::arg("queries"), py::arg("count"), py::arg("grid"),
      py::arg("found"), py::arg("stream"), Released());
  def_cells<float, int32_t>(module, "cells_of_points_float32_int32");
  def_cells<float, int64_t>(module, "cells_of_points_float32_int64");
  def_cells<double, int32_t>(module, "cells_of_points_float64_int32");
  def_cells<double, int64_t>(module, "cells_of_points_float64_int64");
}

void bind_maps(py::module_& module) {
  module.def(
      "count_neighbours",
      [](uintptr_t keys, uintptr_t outputs, int32_t sites, const Grid& grid, const Taps& taps,
         uintptr_t starts, uintptr_t counts, uintptr_t stream) {
        count_neighbours(neighbourhood_of(keys, outputs, sites), read(grid), read(taps), at<int32_t>(starts),
                         at<int64_t>(counts), at<void>(stream));
      },
      py::arg("keys"), py::arg("outputs"), py::arg("sites"), py::arg("grid"), py::arg("taps"),
      py::arg("starts"), py::arg("counts"), py::arg("stream"), Released());
  module.def(
      "write_neighbours",
      [](uintptr_t keys, uintptr_t outputs, int32_t sites, uintptr_t order, const Grid& grid,
         const Taps& taps, uintptr_t starts, uintptr_t totals, const std::array<uintptr_t, 4>& places,
         int64_t pairs, uintptr_t stream) {
        const PairArrays to{at<int32_t>(places[0]), at<int32_t>(places[1]), at<int32_t>(places[2]),
                            at<int32_t>(places[3]), pairs};
        write_neighbours(neighbourhood_of(keys, outputs, sites), at<const int32_t>(order), read(grid),
                         read(taps), at<const int32_t>(starts), at<const int64_t>(totals), to,
                         at<void>(stream));
      },
      py::arg("keys"), py::arg("outputs"), py::arg("sites"), py::arg("order"), py::arg("grid"),
      py::arg("taps"), py::arg("starts"), py::arg("totals"), py::arg("places"), py::arg("pairs"),
      py::arg("stream"), Released());
  module.def(
      "count_reached",
      [](const Rows& sites, const Grid& grid, const Taps& taps, uintptr_t counts, uintptr_t stream) {
        count_reached({read(sites), read(grid), read(taps)}, at<int64_t>(counts), at<void>(stream));
      },
      py::arg("sites"), py::arg("grid"), py::arg("taps"), py::arg("counts"), py::arg("stream"), Released());
  module.def(
      "write_reached",
      [](const Rows& sites, const Grid& grid, const Taps& taps, uintptr_t totals, uintptr_t in_maps,
         uintptr_t keys, uintptr_t stream) {
        write_reached({read(sites), read(grid), read(taps)}, at<const int64_t>(totals), at<int32_t>(in_maps),
                      at<int64_t>(keys), at<void>(stream));
      },
      py::arg("sites"), py::arg("grid"), py::arg("taps"), py::arg("totals"), py::arg("in_maps"),
      py::arg("keys"), py::arg("stream"), Released());
  module.def(
      "key_pairs",
      [](uintptr_t in_maps, uintptr_t offsets, int32_t taps, int32_t rows, int64_t pairs, uintptr_t keys,
         uintptr_t stream) {
        key_pairs(at<const int32_t>(in_maps), at<const int64_t>(offsets), taps, rows, pairs,
                  at<int64_t>(keys), at<void>(stream));
      },
      py::arg("in_maps"), py::arg("offsets"), py::arg("taps"), py::arg("rows"), py::arg("pairs"),
      py::arg("keys"), py::arg("stream"), Released());
  module.def(
      "unkey_pairs",
      [](uintptr_t keys, uintptr_t offsets, int32_t taps, int32_t rows, int64_t pairs, uintptr_t back_out,
         uintptr_t stream) {
        unkey_pairs(at<const int64_t>(keys), at<const int64_t>(offsets), taps, rows, pairs,
                    at<int32_t>(back_out), at<void>(stream));
      },
      py::arg("keys"), py::arg("offsets"), py::arg("taps"), py::arg("rows"), py::arg("pairs"),
      py::arg("back_out"), py::arg("stream"), Released());
}

}  // namespace

void bind_sites(py::module_& module) {
  bind_sets(module);
  bind_maps(module);
}

}  // namespace hepfeed::device
