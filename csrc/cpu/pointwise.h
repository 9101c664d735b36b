// Programs of functions of one number, applied to all items in one pass over memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/convert.h"

namespace hepfeed {

// One operation with parameters p, q, r; all arithmetic is in double.
//
//   linear    x <- (x - p) q + r
//   clip      x <- min(max(x, p), q); NaN stays
//   log       x <- log(x + p) q, of the exact sum; refused where x + p <= 0
//   log_tanh  x <- tanh(log(1 + p x)) = t (t + 2) / (t (t + 2) + 2) with t = p x; refused where 1 + t <= 0
//   round     x <- float32(x), as if it had been stored
enum class Op : int64_t { linear, clip, log, log_tanh, round };

// Parameters are params (length, 3, entries); item i uses entry (i / run) % entries.
struct Program {
  const int64_t* ops;
  size_t length;
  const double* params;
  size_t entries;
  size_t run;
};

// out = program(in), rounded once to the output's type, which is f32 or f64.  Returns the first item that an
// operation refuses, or -1; the output is incomplete then.
int64_t pointwise(const uint8_t* in, Type type, uint8_t* out, Type out_type, size_t count,
                  const Program& program);

constexpr size_t kBlock = 256;

// Up to kBlock items as doubles, and back.
void load_block(const uint8_t* in, Type type, size_t count, double* out);
void store_block(const double* in, size_t count, uint8_t* out, Type type);

inline size_t bytes_of(Type type) {
  constexpr size_t kBytes[] = {1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 0};
  return kBytes[static_cast<size_t>(type)];
}

}  // namespace hepfeed
