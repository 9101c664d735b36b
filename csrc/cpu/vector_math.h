// Elementary functions without branches or tables, for loops that the compiler turns into vector code.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/clones.h"

namespace hepfeed {

inline HEPFEED_INLINE uint64_t bits_of(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, 8);
  return bits;
}

inline HEPFEED_INLINE double of_bits(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}

// An integer below 2^52: AVX2 has no conversion, so it is put into the mantissa of 2^52.
inline HEPFEED_INLINE double small_to_double(uint64_t value) {
  return of_bits(value | 0x4330000000000000u) - 0x1p52;
}

// The upper 53 bits as a number in [0, 1), as numpy.random makes one.
inline HEPFEED_INLINE double unit_of(uint64_t word) {
  const uint64_t value = word >> 11;
  return (small_to_double(value >> 32) * 0x1p32 + small_to_double(value & 0xffffffffu)) * 0x1p-53;
}

// log(1 + f) + exponent log(2) + tail for 1 + f between sqrt(1/2) and sqrt(2), by the series in s = f / (2 +
// f) with the coefficients of FreeBSD's e_log.c; to 1 unit in the last place.
inline HEPFEED_INLINE double log_series(double f, double exponent, double tail) {
  const double s = f / (2.0 + f), z = s * s, w = z * z;
  const double even =
      w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const double odd =
      z * (6.666666666666735130e-01 +
           w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const double half = 0.5 * f * f;
  const double low = s * (half + (even + odd)) + (exponent * 1.90821492927058770002e-10 + tail);
  return exponent * 6.93147180369123816490e-01 - ((half - low) - f);
}

// A positive number x = 2^e (1 + f) with 1 + f between sqrt(1/2) and sqrt(2), by the bits of x.
struct Scaled {
  double biased, f;  // e + 1023

  explicit HEPFEED_INLINE Scaled(uint64_t bits) {
    const uint64_t up = bits + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
    biased = small_to_double(up >> 52);
    f = of_bits((up & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
  }
};

// Natural logarithm of x + rest, with a rest of at most half a unit in the last place of x.  The rest counts
// where e = 0 alone, as rest / x = rest (1 - f + f f): elsewhere it is below the last place of the result.
inline HEPFEED_INLINE double log_of(double x, double rest = 0.0) {
  const double infinity = std::numeric_limits<double>::infinity();
  const bool subnormal = x < 0x1p-1022;
  const Scaled scaled(bits_of(subnormal ? x * 0x1p54 : x));
  const double exponent = scaled.biased - (subnormal ? 1077.0 : 1023.0), f = scaled.f;
  const double near = exponent == 0.0 ? rest * (1.0 - f + f * f) : 0.0;
  const double finite = log_series(f, exponent, near);
  const double negative = x < 0.0 ? std::numeric_limits<double>::quiet_NaN() : x;
  const double special = x == 0.0 ? -infinity : negative;
  const bool regular = (x > 0.0) & (x < infinity);
  return regular ? finite : special;
}

// Whether log_of_regular() takes x.
inline HEPFEED_INLINE bool regular_for_log(double x) {
  return (x >= 0x1p-1022) & (x < std::numeric_limits<double>::infinity());
}

// log_of(x), the same bits with a third less work, where nothing is special: for normal positive x.
inline HEPFEED_INLINE double log_of_regular(double x) {
  const Scaled scaled(bits_of(x));
  return log_series(scaled.f, scaled.biased - 1023.0, 0.0);
}

// Sine and cosine of 2 pi u for u in [0, 1]: a quarter turn is taken off, the rest of at most pi/4 goes into
// the series with the coefficients of FreeBSD's k_sin.c and k_cos.c.
inline HEPFEED_INLINE void turn_of(double u, double* sine, double* cosine) {
  const double shifted = 4.0 * u + 0x1.8p52;  // rounds to the nearest integer, which is then in the last bits
  const uint64_t quarter = bits_of(shifted);
  const double y = 6.283185307179586477 * (u - 0.25 * (shifted - 0x1.8p52)), z = y * y;
  const double s =
      y + y * z *
              (-1.66666666666666324348e-01 +
               z * (8.33333333332248946124e-03 +
                    z * (-1.98412698298579493134e-04 +
                         z * (2.75573137070700676789e-06 +
                              z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  const double c =
      1.0 -
      (0.5 * z - z * z *
                     (4.16666666666666019037e-02 +
                      z * (-1.38888888888741095749e-03 +
                           z * (2.48015872894767294178e-05 +
                                z * (-2.75573143513906633035e-07 +
                                     z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))))));
  const uint64_t odd = 0 - (quarter & 1);  // all bits, where sine and cosine change places
  const uint64_t sine_bits = (bits_of(s) & ~odd) | (bits_of(c) & odd);
  const uint64_t cosine_bits = (bits_of(c) & ~odd) | (bits_of(s) & odd);
  *sine = of_bits(sine_bits ^ (quarter & 2) << 62);
  *cosine = of_bits(cosine_bits ^ ((quarter + 1) & 2) << 62);
}

}  // namespace hepfeed
