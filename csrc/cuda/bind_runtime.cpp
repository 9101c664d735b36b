// Bindings of the runtime and of the sort.
#include "cuda/address.h"
#include "cuda/bindings.h"
#include "cuda/runtime.h"
#include "cuda/sort.h"

namespace hepfeed::device {

void bind_runtime(py::module_& module) {
  module.def("devices", [] {
    const Devices found = devices();
    return py::make_tuple(found.count, found.trouble);
  });
  module.def("runtime_version", &runtime_version);
  module.def("sort_pairs_bytes", &sort_pairs_bytes, py::arg("count"), py::arg("end_bit"));
  module.def(
      "sort_pairs",
      [](uintptr_t work, size_t bytes, uintptr_t keys_in, uintptr_t keys_out, uintptr_t values_in,
         uintptr_t values_out, int64_t count, int end_bit, uintptr_t stream) {
        sort_pairs(at<void>(work), bytes, at<const uint64_t>(keys_in), at<uint64_t>(keys_out),
                   at<const int32_t>(values_in), at<int32_t>(values_out), count, end_bit, at<void>(stream));
      },
      py::arg("work"), py::arg("bytes"), py::arg("keys_in"), py::arg("keys_out"), py::arg("values_in"),
      py::arg("values_out"), py::arg("count"), py::arg("end_bit"), py::arg("stream"),
      py::call_guard<py::gil_scoped_release>());
}

}  // namespace hepfeed::device
