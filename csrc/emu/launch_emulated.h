// launch() on the emulator.
#pragma once

#include <tuple>
#include <utility>

#include "emu/grid.h"
#include "launch_limits.h"

namespace hepfeed::device {

// Runs kernel(arguments...) in grid x block threads, to the end.  The arguments are converted to the kernel's
// parameters.  Throws Fault (emu/fault.h) for what a kernel must not do.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_shared, Stream,
            Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "a kernel takes other arguments");
  if (!check_launch(grid, block, dynamic_shared)) return;
  const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  const auto thread = [&] { std::apply(kernel, values); };
  emulated::run_grid(
      grid, block, dynamic_shared, [](const void* call) { (*static_cast<decltype(&thread)>(call))(); },
      &thread);
}

}  // namespace hepfeed::device
