#include "emu/copy_queue.h"

#include <cstring>

#include "emu/sanitizers.h"

namespace hepfeed::emulated {

void Copy::run() const {
  note_write(to, kCopyBytes);
  if (from == nullptr) {
    std::memset(to, 0, kCopyBytes);
  } else {
    note_read(from, kCopyBytes);
    std::memcpy(to, from, kCopyBytes);
  }
}

void CopyQueue::finish(int but_last) {
  size_t finished = 0;
  for (; finished < copies_.size() && copies_[finished].group < group_ - but_last; ++finished)
    copies_[finished].copy.run();
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(finished));
}

}  // namespace hepfeed::emulated
