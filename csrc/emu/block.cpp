#include "emu/block.h"

namespace hepfeed::emulated {
namespace {

std::string triple(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) +
         ")";
}

}  // namespace

Block::Block(dim3 shape, uint3 index, size_t dynamic_bytes)
    : index(index),
      threads(shape.x * shape.y * shape.z),
      warps((threads.size() + kLanes - 1) / kLanes),
      shared(dynamic_bytes) {
  for (unsigned number = 0; number < threads.size(); ++number) {
    threads[number].number = number;
    threads[number].index = {number % shape.x, number / shape.x % shape.y, number / shape.x / shape.y};
    warps[number / kLanes].present |= 1u << number % kLanes;
  }
}

std::string Block::name(const Thread& thread) const {
  return "thread " + triple(thread.index) + " of block " + triple(index);
}

std::string Block::describe(const Thread& thread) const {
  std::string words = name(thread);
  switch (thread.state) {
    case State::kReady:
      return words;
    case State::kEnded:
      return words + " has ended";
    case State::kAtBarrier:
      words += " waits for the block";
      break;
    case State::kInWarp:
      words += " waits for its warp";
      break;
  }
  return words + " at " + thread.place.file + ":" + std::to_string(thread.place.line);
}

}  // namespace hepfeed::emulated
