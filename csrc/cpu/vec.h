// Vectors of float or double, one type for each instruction set.
//
// Code that is written once for all of them is included by one file for each set, which says with
// HEPFEED_TARGET what its functions are compiled for.
#pragma once

#include <cstddef>
#include <cstring>

#include "cpu/isa.h"

#if HEPFEED_X86
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace hepfeed {

#define HEPFEED_FORCE inline __attribute__((always_inline))

// 16 bytes: SSE2, NEON or what the compiler makes of them.
template <class T>
struct BaselineVec {
  typedef T V __attribute__((vector_size(16)));
  static constexpr size_t kLanes = 16 / sizeof(T);
#if defined(__aarch64__)
  static constexpr size_t kRegisters = 32;
#else
  static constexpr size_t kRegisters = 16;
#endif

  static HEPFEED_FORCE V load(const T* from) {
    V value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static HEPFEED_FORCE void store(T* to, V value) { std::memcpy(to, &value, sizeof value); }
  static HEPFEED_FORCE V broadcast(T value) { return V{} + value; }
  static HEPFEED_FORCE V zero() { return V{}; }
  static HEPFEED_FORCE V add(V a, V b) { return a + b; }
  // a * b + c
  static HEPFEED_FORCE V fma(V a, V b, V c) {
#if defined(__aarch64__)
    if constexpr (sizeof(T) == 4)
      return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
    else
      return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
  }
};

#if HEPFEED_X86

template <class T>
struct Avx2Vec;

template <>
struct Avx2Vec<float> {
  using V = __m256;
  static constexpr size_t kLanes = 8, kRegisters = 16;

  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V load(const float* from) { return _mm256_loadu_ps(from); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE void store(float* to, V value) { _mm256_storeu_ps(to, value); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V broadcast(float value) { return _mm256_set1_ps(value); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V zero() { return _mm256_setzero_ps(); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V add(V a, V b) { return _mm256_add_ps(a, b); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
};

template <>
struct Avx2Vec<double> {
  using V = __m256d;
  static constexpr size_t kLanes = 4, kRegisters = 16;

  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V load(const double* from) { return _mm256_loadu_pd(from); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE void store(double* to, V value) { _mm256_storeu_pd(to, value); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V broadcast(double value) { return _mm256_set1_pd(value); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V zero() { return _mm256_setzero_pd(); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V add(V a, V b) { return _mm256_add_pd(a, b); }
  static HEPFEED_TARGET_AVX2 HEPFEED_FORCE V fma(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
};

template <class T>
struct Avx512Vec;

template <>
struct Avx512Vec<float> {
  using V = __m512;
  static constexpr size_t kLanes = 16, kRegisters = 32;

  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V load(const float* from) { return _mm512_loadu_ps(from); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE void store(float* to, V value) { _mm512_storeu_ps(to, value); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V broadcast(float value) { return _mm512_set1_ps(value); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V zero() { return _mm512_setzero_ps(); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V add(V a, V b) { return _mm512_add_ps(a, b); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
};

template <>
struct Avx512Vec<double> {
  using V = __m512d;
  static constexpr size_t kLanes = 8, kRegisters = 32;

  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V load(const double* from) { return _mm512_loadu_pd(from); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE void store(double* to, V value) { _mm512_storeu_pd(to, value); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V broadcast(double value) { return _mm512_set1_pd(value); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V zero() { return _mm512_setzero_pd(); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V add(V a, V b) { return _mm512_add_pd(a, b); }
  static HEPFEED_TARGET_AVX512 HEPFEED_FORCE V fma(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
};

#endif  // HEPFEED_X86

}  // namespace hepfeed
