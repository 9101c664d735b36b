// Where in its source a thread of an emulated kernel stands.
#pragma once

#include <cstring>

namespace hepfeed::emulated {

struct Place {
  const char* file = nullptr;
  int line = 0;

  // The place of the call: as a default argument, that of the call of the function that has it.
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }

  friend bool operator==(const Place& a, const Place& b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
  }
  friend bool operator!=(const Place& a, const Place& b) { return !(a == b); }
};

}  // namespace hepfeed::emulated
