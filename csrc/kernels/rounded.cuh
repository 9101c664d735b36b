// Doubles whose every operation is rounded for itself: never contracted to a fused multiplication and
// addition, so that results have the bits of the kernels of the CPU (cpu/vector_math.h, where the series come
// from).
#pragma once

#include <cmath>

#include "port.h"

namespace hepfeed::device {

struct Rounded {
  double value;
};

__device__ inline Rounded operator+(Rounded a, Rounded b) { return {__dadd_rn(a.value, b.value)}; }
__device__ inline Rounded operator-(Rounded a, Rounded b) { return {__dsub_rn(a.value, b.value)}; }
__device__ inline Rounded operator*(Rounded a, Rounded b) { return {__dmul_rn(a.value, b.value)}; }
__device__ inline Rounded operator/(Rounded a, Rounded b) { return {__ddiv_rn(a.value, b.value)}; }
__device__ inline Rounded operator+(double a, Rounded b) { return Rounded{a} + b; }
__device__ inline Rounded operator-(double a, Rounded b) { return Rounded{a} - b; }
__device__ inline Rounded operator*(double a, Rounded b) { return Rounded{a} * b; }
__device__ inline Rounded operator+(Rounded a, double b) { return a + Rounded{b}; }
__device__ inline Rounded operator-(Rounded a, double b) { return a - Rounded{b}; }
__device__ inline Rounded operator*(Rounded a, double b) { return a * Rounded{b}; }

__device__ inline uint64_t bits_of(double value) {
  return static_cast<uint64_t>(__double_as_longlong(value));
}
__device__ inline double of_bits(uint64_t bits) { return __longlong_as_double(static_cast<long long>(bits)); }

// Natural logarithm of x + rest, with a rest of at most half a unit in the last place of x; to 1 unit in the
// last place.
__device__ inline double log_of(double x, double rest = 0.0) {
  if (!(x > 0.0)) return x == 0.0 ? -INFINITY : NAN;
  if (x == INFINITY) return x;
  const bool subnormal = x < 0x1p-1022;
  const uint64_t bits = bits_of(subnormal ? x * 0x1p54 : x);
  const uint64_t up = bits + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const Rounded exponent{static_cast<double>(static_cast<int64_t>(up >> 52)) - (subnormal ? 1077.0 : 1023.0)};
  const Rounded f = Rounded{of_bits((up & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu)} - 1.0;
  const Rounded s = f / (2.0 + f), z = s * s, w = z * z;
  const Rounded even =
      w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const Rounded odd =
      z * (6.666666666666735130e-01 +
           w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const Rounded half = 0.5 * f * f;
  const Rounded near = exponent.value == 0.0 ? rest * (1.0 - f + f * f) : Rounded{0.0};
  const Rounded low = s * (half + (even + odd)) + (exponent * 1.90821492927058770002e-10 + near);
  return (exponent * 6.93147180369123816490e-01 - ((half - low) - f)).value;
}

// Sine and cosine of 2 pi u for u in [0, 1].
__device__ inline void turn_of(double u, double* sine, double* cosine) {
  const double shifted = __dadd_rn(4.0 * u, 0x1.8p52);  // the nearest integer, in the last bits
  const uint64_t quarter = bits_of(shifted);
  const Rounded y = 6.283185307179586477 * (Rounded{u} - 0.25 * Rounded{__dsub_rn(shifted, 0x1.8p52)});
  const Rounded z = y * y;
  const Rounded s =
      y + y * z *
              (-1.66666666666666324348e-01 +
               z * (8.33333333332248946124e-03 +
                    z * (-1.98412698298579493134e-04 +
                         z * (2.75573137070700676789e-06 +
                              z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  const Rounded c =
      1.0 -
      (0.5 * z - z * z *
                     (4.16666666666666019037e-02 +
                      z * (-1.38888888888741095749e-03 +
                           z * (2.48015872894767294178e-05 +
                                z * (-2.75573143513906633035e-07 +
                                     z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))))));
  const bool odd = quarter & 1;
  *sine = of_bits(bits_of(odd ? c.value : s.value) ^ (quarter & 2) << 62);
  *cosine = of_bits(bits_of(odd ? s.value : c.value) ^ ((quarter + 1) & 2) << 62);
}

}  // namespace hepfeed::device
