// Memory that a kernel works in: aligned to cache lines, not initialised.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace hepfeed {

constexpr size_t kLineBytes = 64;

struct FreeLines {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{kLineBytes}); }
};

// Items of a plain type.
template <class T>
using Lines = std::unique_ptr<T[], FreeLines>;

template <class T>
Lines<T> new_lines(size_t items) {
  return Lines<T>(static_cast<T*>(::operator new(items * sizeof(T), std::align_val_t{kLineBytes})));
}

// Pieces of memory that the blocks of one call borrow one after the other, so that there are no more of them
// than threads at work, and each is touched for the first time once.
class ScratchPool {
 public:
  explicit ScratchPool(size_t bytes) : bytes_(bytes) {}

  // Calls body(piece) with a piece that no other thread has meanwhile.
  template <class Body>
  void with_piece(const Body& body) {
    Lines<std::byte> piece = take();
    body(piece.get());
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(piece));
  }

 private:
  Lines<std::byte> take() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        Lines<std::byte> piece = std::move(idle_.back());
        idle_.pop_back();
        return piece;
      }
    }
    return new_lines<std::byte>(bytes_);
  }

  const size_t bytes_;
  std::mutex mutex_;
  std::vector<Lines<std::byte>> idle_;
};

}  // namespace hepfeed
