#include "cpu/threads.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace hepfeed {
namespace {

// GNU's entry point, which LLVM's and Intel's runtimes have too.
using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

struct Work {
  size_t blocks;
  void (*call)(const void*, size_t);
  const void* data;
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;  // set by the thread that set `failed` first

  Work(size_t blocks, void (*call)(const void*, size_t), const void* data)
      : blocks(blocks), call(call), data(data) {}

  void run() {
    for (size_t block; (block = next.fetch_add(1, std::memory_order_relaxed)) < blocks;) {
      try {
        call(data, block);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
        next.store(blocks, std::memory_order_relaxed);
      }
    }
  }
};

// The best of the loaded libraries that may be an OpenMP runtime: torch's own, else any.
int look_at_library(dl_phdr_info* info, size_t, void* found) {
  if (!info->dlpi_name || !*info->dlpi_name) return 0;
  const char* slash = std::strrchr(info->dlpi_name, '/');
  const char* name = slash ? slash + 1 : info->dlpi_name;
  bool is_runtime = false;
  for (const char* start : {"libgomp", "libiomp5", "libomp"})
    is_runtime |= std::strncmp(name, start, std::strlen(start)) == 0;
  if (!is_runtime) return 0;
  auto& path = *static_cast<std::string*>(found);
  const bool of_torch = std::strstr(info->dlpi_name, "/torch") != nullptr;
  if (path.empty() || of_torch) path = info->dlpi_name;
  return of_torch;
}

Parallel find_parallel() {
  std::string path;
  dl_iterate_phdr(look_at_library, &path);
  if (path.empty()) return nullptr;
  // Never closed: a runtime stays as long as its threads.
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  return library ? reinterpret_cast<Parallel>(dlsym(library, "GOMP_parallel")) : nullptr;
}

// Looked for until there is one, as torch may be imported later.
Parallel parallel() {
  static std::atomic<Parallel> known{nullptr};
  Parallel entry = known.load(std::memory_order_acquire);
  if (!entry && (entry = find_parallel())) known.store(entry, std::memory_order_release);
  return entry;
}

}  // namespace

void run_blocks(size_t blocks, int threads, void (*call)(const void* data, size_t block), const void* data) {
  Work work(blocks, call, data);
  const auto most =
      static_cast<unsigned>(std::min<size_t>(blocks, static_cast<size_t>(std::max(threads, 1))));
  if (most <= 1) {
    work.run();
  } else if (const Parallel start = parallel()) {
    start([](void* it) { static_cast<Work*>(it)->run(); }, &work, most, 0);
  } else {
    std::vector<std::thread> others;
    others.reserve(most);
    try {
      while (others.size() + 1 < most) others.emplace_back([&work] { work.run(); });
    } catch (const std::system_error&) {
      // No more threads are to be had: those there do the work.
    }
    work.run();
    for (std::thread& other : others) other.join();
  }
  if (work.error) std::rethrow_exception(work.error);
}

}  // namespace hepfeed
