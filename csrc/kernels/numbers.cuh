// Numbers of any type, four at a time: the type is the same for a whole launch, so that one kernel serves all
// types and its branches never diverge.
#pragma once

#include "kernels/batch.h"
#include "port.h"

namespace hepfeed::device {

constexpr int kFour = 4;

// Four items that lie together, read and written 16 bytes at once, or all of them where they are fewer.
template <class T>
struct alignas(kFour * sizeof(T) < 16 ? kFour * sizeof(T) : 16) Four {
  T item[kFour];
};

template <class T>
__device__ inline bool lies_well(const T* items) {
  return reinterpret_cast<uintptr_t>(items) % alignof(Four<T>) == 0;
}

// Items 0 .. count - 1, of four at most; the others are 0.
template <class T>
__device__ inline Four<T> load_four(const T* items, int count) {
  if (count == kFour && lies_well(items)) return *reinterpret_cast<const Four<T>*>(items);
  Four<T> four = {};
  for (int k = 0; k < kFour; ++k)
    if (k < count) four.item[k] = items[k];
  return four;
}

template <class T>
__device__ inline void store_four(const Four<T>& four, T* items, int count) {
  if (count == kFour && lies_well(items)) {
    *reinterpret_cast<Four<T>*>(items) = four;
    return;
  }
  for (int k = 0; k < kFour; ++k)
    if (k < count) items[k] = four.item[k];
}

// Calls function(T{}) with the C++ type of a number.
template <class Function>
__device__ inline auto with_number(Number type, const Function& function) {
  switch (type) {
    case Number::i8:
      return function(int8_t{});
    case Number::i16:
      return function(int16_t{});
    case Number::i32:
      return function(int32_t{});
    case Number::i64:
      return function(int64_t{});
    case Number::u16:
      return function(uint16_t{});
    case Number::u32:
      return function(uint32_t{});
    case Number::u64:
      return function(uint64_t{});
    case Number::f16:
      return function(Half{});
    case Number::f32:
      return function(float{});
    case Number::f64:
      return function(double{});
    default:  // u8 and b8
      return function(uint8_t{});
  }
}

__device__ inline double as_double(Half value) { return static_cast<double>(to_float(value)); }
template <class T>
__device__ inline double as_double(T value) {
  return static_cast<double>(value);
}

// Items first .. first + count - 1 as doubles.
__device__ inline void load_doubles(const Items& items, int64_t first, int count, double (&x)[kFour]) {
  with_number(items.type, [&](auto zero) {
    using T = decltype(zero);
    const Four<T> four = load_four(static_cast<const T*>(items.data) + first, count);
    for (int k = 0; k < kFour; ++k) x[k] = as_double(four.item[k]);
  });
}

// The same back, rounded once, to float64 or float32.
__device__ inline void store_doubles(const double (&x)[kFour], const Results& out, int64_t first, int count) {
  if (out.type == Number::f64) {
    Four<double> four;
    for (int k = 0; k < kFour; ++k) four.item[k] = x[k];
    store_four(four, static_cast<double*>(out.data) + first, count);
  } else {
    Four<float> four;
    for (int k = 0; k < kFour; ++k) four.item[k] = static_cast<float>(x[k]);
    store_four(four, static_cast<float*>(out.data) + first, count);
  }
}

// Item `place` as a double.
__device__ inline double double_at(const void* items, Number type, int64_t place) {
  return with_number(type,
                     [&](auto zero) { return as_double(static_cast<const decltype(zero)*>(items)[place]); });
}

// How many of four items from `first` on count, of `count`.
__device__ inline int present_of(const Present& present, int64_t count, int64_t first) {
  const int64_t last = present.rows ? min(*present.rows * present.width, count) : count;
  return first >= last ? 0 : static_cast<int>(min(last - first, int64_t{kFour}));
}

}  // namespace hepfeed::device
