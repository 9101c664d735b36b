// The asynchronous copies that a thread has started and not yet waited for.
#pragma once

#include <cstddef>
#include <vector>

#include "emu/place.h"

namespace hepfeed::emulated {

constexpr size_t kCopyBytes = 16;

struct Copy {
  void* to;
  const void* from;  // null: zeros
  Place place;

  void run() const;
};

class CopyQueue {
 public:
  void add(const Copy& copy) { copies_.push_back({copy, group_}); }
  void close_group() { ++group_; }
  // Runs the copies of all groups that are closed but the last `but_last`.
  void finish(int but_last);
  // The oldest copy not yet waited for, or null.
  const Copy* first() const { return copies_.empty() ? nullptr : &copies_.front().copy; }

 private:
  struct Entry {
    Copy copy;
    long group;
  };
  std::vector<Entry> copies_;
  long group_ = 0;  // the one that is open
};

}  // namespace hepfeed::emulated
