#include "emu/shared_arena.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "emu/fault.h"
#include "emu/sanitizers.h"
#include "emu/shared_memory.h"

namespace hepfeed::emulated {
namespace {

constexpr size_t kMaxStatic = 48 * 1024;
constexpr size_t kMaxTotal = 99 * 1024;  // of compute capability 8.6 and 8.9, the smallest
constexpr size_t kMaxArrays = 64;
constexpr size_t kAlignment = 16;
constexpr size_t kGuard = 64;  // bytes behind each array that stay as they are
constexpr size_t kMemory = kMaxTotal + kMaxArrays * (kGuard + kAlignment);
constexpr unsigned char kUnset = 0xff, kGuardByte = 0xdb;

std::string named(const char* name, Place place) {
  return std::string("shared array ") + name + " (" + place.file + ":" + std::to_string(place.line) + ")";
}

}  // namespace

// All is filled here, by the host, and not by the thread that asks for an array first: to ThreadSanitizer,
// that would be a write of its own.
SharedArena::SharedArena(size_t dynamic_bytes) : memory_(new char[kMemory]) {
  std::memset(memory_.get(), kUnset, kMemory);
  forbid(memory_.get(), kMemory);
  arrays_.reserve(kMaxArrays);
  add(nullptr, "of the launch", dynamic_bytes, Place::here());
}

SharedArena::~SharedArena() { allow(memory_.get(), kMemory); }

void* SharedArena::array(const void* key, const char* name, size_t bytes, Place place) {
  for (const Array& array : arrays_)
    if (array.key == key) return memory_.get() + array.offset;
  static_ += bytes;
  if (static_ > kMaxStatic)
    throw Fault(named(name, place) + ": " + std::to_string(static_) +
                " bytes of static shared memory; a block has 49152 at most");
  if (static_ + arrays_[0].bytes > kMaxTotal)
    throw Fault(named(name, place) + ": " + std::to_string(static_ + arrays_[0].bytes) +
                " bytes of shared memory, static and dynamic; a block has 101376 on every card");
  if (arrays_.size() == kMaxArrays)
    throw Fault(named(name, place) + ": a kernel has 63 shared arrays at most");
  return add(key, name, bytes, place);
}

void* SharedArena::add(const void* key, const char* name, size_t bytes, Place place) {
  char* const array = memory_.get() + used_;
  allow(array, bytes);
  const size_t end = used_ + bytes;
  arrays_.push_back({key, name, used_, bytes, place});
  used_ = (end + kGuard + kAlignment - 1) / kAlignment * kAlignment;
  allow(memory_.get() + end, used_ - end);
  std::memset(memory_.get() + end, kGuardByte, used_ - end);
  forbid(memory_.get() + end, used_ - end);
  return array;
}

bool SharedArena::holds(const void* from, size_t bytes) const {
  const size_t offset = static_cast<size_t>(static_cast<const char*>(from) - memory_.get());
  return std::any_of(arrays_.begin(), arrays_.end(), [&](const Array& array) {
    return offset >= array.offset && offset + bytes <= array.offset + array.bytes;
  });
}

void SharedArena::check() const {
  for (const Array& array : arrays_) {
    const char* const end = memory_.get() + array.offset + array.bytes;
    for (size_t byte = 0; byte < kGuard; ++byte)
      if (static_cast<unsigned char>(end[byte]) != kGuardByte)
        throw Fault("a write behind the end of " + named(array.name, array.place) + ", " +
                    std::to_string(byte) + " bytes after it");
  }
}

}  // namespace hepfeed::emulated
