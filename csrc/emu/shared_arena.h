// The shared memory of one block.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "emu/place.h"

namespace hepfeed::emulated {

class SharedArena {
 public:
  explicit SharedArena(size_t dynamic_bytes);
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;

  // Returns the array that `key` stands for, made when first asked for.  Throws Fault beyond 48 KiB of such
  // arrays, the limit of the compiler, or 99 KiB together with the dynamic bytes.
  void* array(const void* key, const char* name, size_t bytes, Place place);
  void* dynamic() { return memory_.get(); }

  // Whether the bytes lie in one array.
  bool holds(const void* from, size_t bytes) const;

  // Throws Fault where something was written behind an array.
  void check() const;

 private:
  struct Array {
    const void* key;
    const char* name;
    size_t offset, bytes;
    Place place;
  };
  void* add(const void* key, const char* name, size_t bytes, Place place);

  std::unique_ptr<char[]> memory_;
  std::vector<Array> arrays_;
  size_t used_ = 0;    // of memory_, with guards
  size_t static_ = 0;  // bytes of arrays but the dynamic one
};

}  // namespace hepfeed::emulated
