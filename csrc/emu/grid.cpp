#include "emu/grid.h"

#include <atomic>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "emu/block.h"
#include "emu/processor.h"
#include "emu/sanitizers.h"

namespace hepfeed::emulated {
namespace {

std::atomic<uint64_t> g_seed{0};
std::atomic<uint64_t> g_launches{0};  // since the seed was set

// The numbers of the blocks in the order in which they run.
std::vector<size_t> block_order(size_t blocks, Random* random) {
  std::vector<size_t> order(blocks);
  std::iota(order.begin(), order.end(), size_t{0});
  if (random != nullptr)
    for (size_t last = blocks; last > 1; --last) std::swap(order[last - 1], order[random->below(last)]);
  return order;
}

// The blocks that have run.  One is enough, but for ThreadSanitizer: it takes threads of two blocks for
// unordered as long as neither their memory nor its own record of them is used again, so that some are kept.
class Blocks {
 public:
  explicit Blocks(Processor& processor) : processor_(processor) { processor_.settle(); }
  ~Blocks() { clear(); }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  Block& add(dim3 shape, uint3 index, size_t dynamic_bytes) {
    if (threads_ >= (kThreadSanitizer ? kKeptThreads : 1)) clear();
    blocks_.push_back(std::make_unique<Block>(shape, index, dynamic_bytes));
    threads_ += blocks_.back()->threads.size();
    return *blocks_.back();
  }

 private:
  static constexpr size_t kKeptThreads = 2048;

  void clear() {
    processor_.settle();
    blocks_.clear();
    threads_ = 0;
  }

  Processor& processor_;
  std::vector<std::unique_ptr<Block>> blocks_;
  size_t threads_ = 0;
};

}  // namespace

void set_seed(uint64_t seed) {
  g_seed = seed;
  g_launches = 0;
}

void run_grid(dim3 grid, dim3 block, size_t dynamic_shared, void (*thread)(const void*), const void* data) {
  Processor& processor = Processor::here();
  const uint64_t seed = g_seed;
  processor.set_order(seed != 0, seed + (++g_launches << 32));
  blockDim = block;
  gridDim = grid;
  Blocks blocks(processor);
  for (const size_t number : block_order(size_t{grid.x} * grid.y * grid.z, processor.random())) {
    blockIdx = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                static_cast<unsigned>(number / grid.x / grid.y)};
    Block& running = blocks.add(block, blockIdx, dynamic_shared);
    processor.run(running, thread, data);
    running.shared.check();
  }
}

}  // namespace hepfeed::emulated
