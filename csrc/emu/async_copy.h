// cp.async: copies that lag behind the thread that asks for them.
//
// A copy takes place at the thread's wait for its group, and not before: what reads too early finds the old
// bytes.  In a random order of threads it takes place either there or at once, since hardware may do both.
#pragma once

#include "emu/place.h"

namespace hepfeed::emulated {

void start_copy(void* shared, const void* global, bool valid, Place place);
void close_group();
void finish_groups(int but_last, Place place);

}  // namespace hepfeed::emulated

namespace hepfeed::device {

inline void copy_async_16(void* shared, const void* global, bool valid,
                          emulated::Place place = emulated::Place::here()) {
  emulated::start_copy(shared, global, valid, place);
}

inline void copy_async_commit() { emulated::close_group(); }

template <int kGroups>
void copy_async_wait(emulated::Place place = emulated::Place::here()) {
  static_assert(kGroups >= 0, "the groups that may still be under way");
  emulated::finish_groups(kGroups, place);
}

}  // namespace hepfeed::device
