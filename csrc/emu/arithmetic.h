// CUDA's functions of numbers.  The unit must be compiled with -ffp-contract=off.
#pragma once

#include <cmath>

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __dsqrt_rn(double x) { return sqrt(x); }

#define HEPFEED_MIN_MAX(type)                               \
  inline type min(type x, type y) { return y < x ? y : x; } \
  inline type max(type x, type y) { return x < y ? y : x; }

HEPFEED_MIN_MAX(int)
HEPFEED_MIN_MAX(unsigned)
HEPFEED_MIN_MAX(long)
HEPFEED_MIN_MAX(unsigned long)
HEPFEED_MIN_MAX(long long)
HEPFEED_MIN_MAX(unsigned long long)

#undef HEPFEED_MIN_MAX

// Of a number and a NaN, the number: as the hardware has it.
inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(double x, double y) { return fmax(x, y); }
