// Bindings of the plan and of the convolution along it.
#include <stdexcept>
#include <string>

#include "cuda/address.h"
#include "cuda/bindings.h"
#include "cuda/convolution.h"
#include "cuda/plan.h"

namespace hepfeed::device {
namespace {

MapPairs map_pairs(uintptr_t in_maps, uintptr_t out_maps, uintptr_t offsets, int64_t pairs, int32_t taps,
                   int32_t in_rows, int32_t out_rows) {
  return {at<const int32_t>(in_maps),
          at<const int32_t>(out_maps),
          at<const int64_t>(offsets),
          pairs,
          taps,
          in_rows,
          out_rows};
}

Variant variant_named(const std::string& name) {
  if (name == "rows") return Variant::kRows;
  if (name == "64x32") return Variant::k64x32;
  if (name == "64x64") return Variant::k64x64;
  if (name == "128x64") return Variant::k128x64;
  if (name == "128x128") return Variant::k128x128;
  throw std::invalid_argument("there is no variant " + name + " of a convolution");
}

void bind_convolve(const std::string& arithmetic, const std::string& name, uintptr_t features,
                   uintptr_t weight, uintptr_t bias, uintptr_t table, uintptr_t rows, uintptr_t tile_taps,
                   uintptr_t out, int32_t positions, int32_t taps, int32_t words, int32_t depth,
                   int32_t width, int32_t groups, uintptr_t stream) {
  const Variant variant = variant_named(name);
  const auto work = [&](auto zero) {
    using T = decltype(zero);
    return Convolution<T>{at<const T>(features),
                          at<const T>(weight),
                          at<const T>(bias),
                          at<const int32_t>(table),
                          at<const int32_t>(rows),
                          at<const uint32_t>(tile_taps),
                          at<T>(out),
                          positions,
                          taps,
                          words,
                          depth,
                          width,
                          groups};
  };
  if (arithmetic == "float32") return convolve(work(float{}), variant, at<void>(stream));
  if (arithmetic == "tf32") return convolve_tf32(work(float{}), variant, at<void>(stream));
  if (arithmetic == "float64") return convolve(work(double{}), variant, at<void>(stream));
  if (arithmetic == "bfloat16") return convolve(work(BFloat16{}), variant, at<void>(stream));
  if (arithmetic == "float16") return convolve(work(Half{}), variant, at<void>(stream));
  throw std::invalid_argument("there is no convolution of " + arithmetic);
}

}  // namespace

void bind_convolution(py::module_& module) {
  using released = py::call_guard<py::gil_scoped_release>;
  module.attr("TILE_ROWS") = kTileRows;
  module.def(
      "mark_taps",
      [](uintptr_t in_maps, uintptr_t out_maps, uintptr_t offsets, int64_t pairs, int32_t taps,
         int32_t in_rows, int32_t out_rows, uintptr_t row_taps, uintptr_t fault, uintptr_t stream) {
        mark_taps(map_pairs(in_maps, out_maps, offsets, pairs, taps, in_rows, out_rows),
                  at<uint64_t>(row_taps), at<int32_t>(fault), at<void>(stream));
      },
      py::arg("in_maps"), py::arg("out_maps"), py::arg("offsets"), py::arg("pairs"), py::arg("taps"),
      py::arg("in_rows"), py::arg("out_rows"), py::arg("row_taps"), py::arg("fault"), py::arg("stream"),
      released());
  module.def(
      "join_taps",
      [](uintptr_t row_taps, uintptr_t rows, int32_t out_rows, int32_t words, uintptr_t positions,
         uintptr_t tile_taps, uintptr_t stream) {
        join_taps(at<const uint64_t>(row_taps), at<const int32_t>(rows), out_rows, words,
                  at<int32_t>(positions), at<uint32_t>(tile_taps), at<void>(stream));
      },
      py::arg("row_taps"), py::arg("rows"), py::arg("out_rows"), py::arg("words"), py::arg("positions"),
      py::arg("tile_taps"), py::arg("stream"), released());
  module.def(
      "place_pairs",
      [](uintptr_t in_maps, uintptr_t out_maps, uintptr_t offsets, int64_t pairs, int32_t taps,
         int32_t in_rows, int32_t out_rows, uintptr_t positions, uintptr_t table, uintptr_t stream) {
        place_pairs(map_pairs(in_maps, out_maps, offsets, pairs, taps, in_rows, out_rows),
                    at<const int32_t>(positions), at<int32_t>(table), at<void>(stream));
      },
      py::arg("in_maps"), py::arg("out_maps"), py::arg("offsets"), py::arg("pairs"), py::arg("taps"),
      py::arg("in_rows"), py::arg("out_rows"), py::arg("positions"), py::arg("table"), py::arg("stream"),
      released());
  module.def("convolve", &bind_convolve, py::arg("arithmetic"), py::arg("variant"), py::arg("features"),
             py::arg("weight"), py::arg("bias"), py::arg("table"), py::arg("rows"), py::arg("tile_taps"),
             py::arg("out"), py::arg("positions"), py::arg("taps"), py::arg("words"), py::arg("depth"),
             py::arg("width"), py::arg("groups"), py::arg("stream"), released());
}

}  // namespace hepfeed::device
