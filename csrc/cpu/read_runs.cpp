#include "cpu/read_runs.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <vector>

namespace hepfeed {
namespace {

constexpr size_t kMostRuns = IOV_MAX;
constexpr int64_t kMostBytes = int64_t{1} << 30;  // of one read; Linux ends reads at 2^31 - 4096

// Runs first .. last - 1, which follow one another in a file, up to `done` bytes into run `first` read.
struct Group {
  size_t first, last;
  int64_t done;
};

class RunReader {
 public:
  RunReader(const FileRuns& runs, int32_t* results) : runs_(runs), results_(results) {}

  void read() {
    std::vector<Group> waiting;
    for (size_t first = 0; first < runs_.count;) {
      Group group{first, end_of_group(first), 0};
      first = group.last;
      if (!read_cached(group)) waiting.push_back(group);
    }
    // Either this or the tries before start the reads of the device; not every kernel has the tries, or
    // starts reading in them.
#if defined(POSIX_FADV_WILLNEED)
    if (waiting.size() > 1)
      for (const Group& group : waiting)
        posix_fadvise(runs_.descriptors[group.first], start(group), left(group), POSIX_FADV_WILLNEED);
#endif
    for (Group& group : waiting) read_waiting(group);
  }

 private:
  size_t end_of_group(size_t first) const {
    int64_t bytes = runs_.bytes[first];
    size_t last = first + 1;
    while (last < runs_.count && last - first < kMostRuns && bytes < kMostBytes &&
           runs_.descriptors[last] == runs_.descriptors[first] &&
           runs_.offsets[last] == runs_.offsets[first] + bytes)
      bytes += runs_.bytes[last++];
    return last;
  }

  int64_t start(const Group& group) const { return runs_.offsets[group.first] + group.done; }

  int64_t left(const Group& group) const {
    const size_t last = group.last - 1;
    return runs_.offsets[last] + runs_.bytes[last] - start(group);
  }

  // Where the rest of a group goes to; returns into how many pieces.
  int pieces(const Group& group) {
    for (size_t i = group.first; i < group.last; ++i)
      pieces_[i - group.first] = {runs_.destinations[i], static_cast<size_t>(runs_.bytes[i])};
    pieces_[0].iov_base = runs_.destinations[group.first] + group.done;
    pieces_[0].iov_len -= static_cast<size_t>(group.done);
    return static_cast<int>(group.last - group.first);
  }

  // Notes that `bytes` more of a group were read; returns whether nothing is left.
  bool advance(Group& group, int64_t bytes) {
    group.done += bytes;
    while (group.first < group.last && group.done >= runs_.bytes[group.first]) {
      group.done -= runs_.bytes[group.first];
      results_[group.first++] = 0;
    }
    return group.first == group.last;
  }

  // Takes what the page cache has; returns whether that was all.
  bool read_cached(Group& group) {
#if defined(RWF_NOWAIT) && defined(__GLIBC__)
    if (!tries_cache_) return false;
    const ssize_t got =
        preadv2(runs_.descriptors[group.first], pieces_, pieces(group), start(group), RWF_NOWAIT);
    if (got < 0 && (errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS)) tries_cache_ = false;
    return got >= 0 && advance(group, got);
#else
    (void)group;
    return false;
#endif
  }

  void read_waiting(Group& group) {
    while (group.first < group.last) {
      const ssize_t got = preadv(runs_.descriptors[group.first], pieces_, pieces(group), start(group));
      if (got < 0 && errno == EINTR) continue;
      if (got >= 0 && (advance(group, got) || got > 0)) continue;
      results_[group.first++] = got < 0 ? errno : kEndOfFile;  // the runs after it may be better
      group.done = 0;
    }
  }

  const FileRuns& runs_;
  int32_t* results_;
  bool tries_cache_ = true;  // until a file system or kernel refuses
  iovec pieces_[kMostRuns];
};

}  // namespace

void read_runs(const FileRuns& runs, int32_t* results) { RunReader(runs, results).read(); }

}  // namespace hepfeed
