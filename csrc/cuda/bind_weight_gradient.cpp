// Bindings of the gradients of the weight and of the bias.
#include <stdexcept>
#include <string>

#include "cuda/address.h"
#include "cuda/bindings.h"
#include "cuda/weight_gradient.h"

namespace hepfeed::device {
namespace {

Arithmetic arithmetic_of(const std::string& name) {
  if (name == "float32") return Arithmetic::float32;
  if (name == "float64") return Arithmetic::float64;
  if (name == "bfloat16") return Arithmetic::bfloat16;
  if (name == "float16") return Arithmetic::float16;
  if (name == "tf32") return Arithmetic::tf32;
  throw std::invalid_argument("there is no arithmetic '" + name + "'");
}

}  // namespace

void bind_weight_gradient(py::module_& module) {
  module.def(
      "weight_gradient_tiles",
      [](const std::string& name) {
        py::dict shapes;
        for (int tile = 0; tile < kTileShapes; ++tile) {
          const TileShape shape = tile_shape(tile);
          if (has_tile(arithmetic_of(name), tile))
            shapes[py::int_(tile)] = py::make_tuple(shape.rows, shape.columns);
        }
        return shapes;
      },
      py::arg("arithmetic"));
  module.def(
      "check_pairs",
      [](uintptr_t in_maps, uintptr_t out_maps, uintptr_t offsets, int64_t pairs, int32_t taps,
         int32_t in_rows, int32_t out_rows, uintptr_t fault, uintptr_t stream) {
        const MapPairs map{at<const int32_t>(in_maps),
                           at<const int32_t>(out_maps),
                           at<const int64_t>(offsets),
                           pairs,
                           taps,
                           in_rows,
                           out_rows};
        check_pairs(map, at<int32_t>(fault), at<void>(stream));
      },
      py::arg("in_maps"), py::arg("out_maps"), py::arg("offsets"), py::arg("pairs"), py::arg("taps"),
      py::arg("in_rows"), py::arg("out_rows"), py::arg("fault"), py::arg("stream"),
      py::call_guard<py::gil_scoped_release>());
  module.def(
      "make_work_items",
      [](uintptr_t offsets, int32_t taps, int64_t chunk, int64_t items, uintptr_t first_item, uintptr_t work,
         uintptr_t stream) {
        make_work_items(at<const int64_t>(offsets), taps, chunk, items, at<int64_t>(first_item),
                        at<int64_t>(work), at<void>(stream));
      },
      py::arg("offsets"), py::arg("taps"), py::arg("chunk"), py::arg("items"), py::arg("first_item"),
      py::arg("work"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());
  module.def(
      "weight_gradient",
      [](const std::string& arithmetic, int tile, uintptr_t left, uintptr_t left_numbers, int64_t left_rows,
         int32_t left_channels, uintptr_t right, uintptr_t right_numbers, int64_t right_rows,
         int32_t right_channels, bool turned, int32_t groups, int32_t taps, uintptr_t first_item,
         uintptr_t work, int64_t items, uintptr_t sums, uintptr_t gradient, uintptr_t stream) {
        weight_gradient(arithmetic_of(arithmetic), tile,
                        {at<const void>(left), at<const int32_t>(left_numbers), left_rows, left_channels},
                        {at<const void>(right), at<const int32_t>(right_numbers), right_rows, right_channels},
                        turned, groups, taps, at<const int64_t>(first_item), at<const int64_t>(work), items,
                        at<void>(sums), at<void>(gradient), at<void>(stream));
      },
      py::arg("arithmetic"), py::arg("tile"), py::arg("left"), py::arg("left_numbers"), py::arg("left_rows"),
      py::arg("left_channels"), py::arg("right"), py::arg("right_numbers"), py::arg("right_rows"),
      py::arg("right_channels"), py::arg("turned"), py::arg("groups"), py::arg("taps"), py::arg("first_item"),
      py::arg("work"), py::arg("items"), py::arg("sums"), py::arg("gradient"), py::arg("stream"),
      py::call_guard<py::gil_scoped_release>());
  module.def(
      "column_sum",
      [](const std::string& dtype, uintptr_t values, int64_t rows, int64_t columns, int64_t block_rows,
         uintptr_t sums, uintptr_t out, uintptr_t stream) {
        column_sum(float_type(dtype), at<const void>(values), rows, columns, block_rows, at<void>(sums),
                   at<void>(out), at<void>(stream));
      },
      py::arg("dtype"), py::arg("values"), py::arg("rows"), py::arg("columns"), py::arg("block_rows"),
      py::arg("sums"), py::arg("out"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace hepfeed::device
