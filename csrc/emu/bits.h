// CUDA's functions of bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace hepfeed::emulated {

template <class To, class From>
inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the bits of a number of the same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace hepfeed::emulated

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }

inline unsigned long long __brevll(unsigned long long x) {
  x = (x >> 1 & 0x5555555555555555u) | (x & 0x5555555555555555u) << 1;
  x = (x >> 2 & 0x3333333333333333u) | (x & 0x3333333333333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0f0f0f0f0fu) | (x & 0x0f0f0f0f0f0f0f0fu) << 4;
  return __builtin_bswap64(x);
}

inline unsigned __brev(unsigned x) { return static_cast<unsigned>(__brevll(x) >> 32); }

inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}

inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(x) * y >> 64);
}

inline unsigned __float_as_uint(float x) { return hepfeed::emulated::same_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return hepfeed::emulated::same_bits<float>(x); }
inline int __float_as_int(float x) { return hepfeed::emulated::same_bits<int>(x); }
inline float __int_as_float(int x) { return hepfeed::emulated::same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return hepfeed::emulated::same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return hepfeed::emulated::same_bits<double>(x); }

template <class T>
inline T __ldg(const T* address) {
  return *address;
}
