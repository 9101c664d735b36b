// Bindings of the kernels that test the emulator.
#include "emu/tests/primitives.h"

#include <pybind11/pybind11.h>

#include "cuda/address.h"
#include "emu/bind_emulator.h"

namespace hepfeed::device {
namespace {

namespace py = pybind11;

// A function whose arguments are numbers and addresses, for one of numbers and pointers.
template <class Argument>
using Plain = std::conditional_t<std::is_pointer_v<Argument>, uintptr_t, Argument>;

template <class Argument>
Argument given(Plain<Argument> value) {
  if constexpr (std::is_pointer_v<Argument>)
    return at<std::remove_pointer_t<Argument>>(value);
  else
    return value;
}

template <class... Arguments>
void bind(py::module_& module, const char* name, void (*function)(Arguments...)) {
  module.def(
      name, [function](Plain<Arguments>... arguments) { function(given<Arguments>(arguments)...); },
      py::call_guard<py::gil_scoped_release>());
}

}  // namespace
}  // namespace hepfeed::device

PYBIND11_MODULE(HEPFEED_CUDA_MODULE, module, pybind11::mod_gil_not_used()) {
  using namespace hepfeed::device;
  bind_emulator(module);
  module.def("write_indices", [](unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y,
                                 unsigned block_z, uintptr_t indices) {
    write_indices({x, y, z}, {block_x, block_y, block_z}, at<int>(indices));
  });
  bind(module, "record_order", &record_order);
  bind(module, "reverse", &reverse);
  bind(module, "read_unset", &read_unset);
  bind(module, "vote_in_block", &vote_in_block);
  bind(module, "vote_in_warp", &vote_in_warp);
  bind(module, "shuffle_integers", &shuffle_integers);
  bind(module, "shuffle_doubles", &shuffle_doubles);
  bind(module, "shuffle_halves", &shuffle_halves);
  bind(module, "pass_round", &pass_round);
  bind(module, "change_integers", &change_integers);
  bind(module, "copy_late", &copy_late);
  bind(module, "multiply_fragments", &multiply_fragments);
  bind(module, "load_fragments", &load_fragments);
  bind(module, "widen", &widen);
  bind(module, "narrow", &narrow);
  bind(module, "round_to_tf32", &round_to_tf32);
  bind(module, "count_bits", &count_bits);
  bind(module, "misbehave", &misbehave);
  bind(module, "race", &race);
}
