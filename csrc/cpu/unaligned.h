// Items in memory of any alignment, by their size alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace hepfeed {

// An item of 16 bytes.
struct Wide {
  uint64_t low, high;
};

inline bool any_bit(Wide item) { return (item.low | item.high) != 0; }
template <class T>
inline bool any_bit(T item) {
  return item != 0;
}

// Item `i` of type T in `data`.
template <class T>
inline T load(const uint8_t* data, size_t i) {
  T item;
  std::memcpy(&item, data + i * sizeof(T), sizeof(T));
  return item;
}

template <class T>
inline void store(uint8_t* data, size_t i, T item) {
  std::memcpy(data + i * sizeof(T), &item, sizeof(T));
}

// Calls `function` with a zero of the unsigned type of cells of that size.
template <class Function>
auto with_cell_type(size_t bytes, const Function& function) {
  switch (bytes) {
    case 2:
      return function(uint16_t{});
    case 4:
      return function(uint32_t{});
    case 8:
      return function(uint64_t{});
    default:
      throw std::invalid_argument("cells have 2, 4 or 8 bytes");
  }
}

// Calls `function` with a zero of a type of that size.
template <class Function>
auto with_item_type(size_t bytes, const Function& function) {
  switch (bytes) {
    case 1:
      return function(uint8_t{});
    case 2:
      return function(uint16_t{});
    case 4:
      return function(uint32_t{});
    case 8:
      return function(uint64_t{});
    case 16:
      return function(Wide{});
    default:
      throw std::invalid_argument("items have 1, 2, 4, 8 or 16 bytes");
  }
}

}  // namespace hepfeed
