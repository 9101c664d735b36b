// Programs of functions of one number: the operations of cpu/pointwise.h, with the same bits.
#pragma once

#include "kernels/numbers.cuh"
#include "kernels/rounded.cuh"
#include "port.h"

namespace hepfeed::device {

// x after an operation; `refused` is set where it is not defined.
__device__ inline double applied(Op op, double x, double p, double q, double r, bool& refused) {
  switch (op) {
    case Op::linear:
      return ((Rounded{x} - p) * q + r).value;
    case Op::clip: {
      const double low = x < p ? p : x;
      return low > q ? q : low;
    }
    case Op::log: {
      // sum + rest is the exact sum (Knuth).
      const Rounded a{x}, b{p}, sum = a + b, back = sum - a, rest = (a - (sum - back)) + (b - back);
      refused |= sum.value <= 0.0;
      return __dmul_rn(log_of(sum.value, rest.value == rest.value ? rest.value : 0.0), q);
    }
    case Op::log_tanh: {
      const Rounded t = Rounded{x} * p, u = t * (t + 2.0);
      refused |= t.value <= -1.0;
      return u.value > 0x1p60 ? 1.0 : (u / (u + 2.0)).value;
    }
    default:  // round
      return static_cast<double>(static_cast<float>(x));
  }
}

__device__ inline int64_t divided(int64_t n, int64_t by) {
  // The usual case, and a third of the instructions.
  if (((n | by) >> 32) == 0) return static_cast<uint32_t>(n) / static_cast<uint32_t>(by);
  return n / by;
}

// out = program(in), rounded once to float64 or float32; sets *fault where an operation refuses an item.
//
// Reads and writes each item once, 16 bytes at a time for items of 4 bytes: that traffic is the floor of it
// on cards with many float64 units; on others the arithmetic is, which is in float64 for the sake of equal
// results.
__global__ void run_program(Items in, Results out, int64_t count, Program program, Present present,
                            int32_t* __restrict__ fault) {
  const int64_t first = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kFour;
  const int some = present_of(present, count, first);
  if (some == 0) return;
  double x[kFour];
  load_doubles(in, first, some, x);
  int64_t entry[kFour] = {};
  if (program.entries > 1) {
    const int64_t runs = divided(first, program.run);
    int64_t within = first - runs * program.run, at = runs - divided(runs, program.entries) * program.entries;
    for (int k = 0; k < kFour; ++k) {
      entry[k] = at;
      if (++within == program.run) {
        within = 0;
        at = at + 1 == program.entries ? 0 : at + 1;
      }
    }
  }
  bool refused = false;
  for (int32_t o = 0; o < program.length; ++o) {
    const Op op = static_cast<Op>(program.ops[o]);
    const double* p = program.params + 3 * o * program.entries;
    const double *q = p + program.entries, *r = q + program.entries;
    for (int k = 0; k < kFour; ++k)
      if (k < some) x[k] = applied(op, x[k], p[entry[k]], q[entry[k]], r[entry[k]], refused);
  }
  if (refused) atomicOr(fault, 1);
  store_doubles(x, out, first, some);
}

}  // namespace hepfeed::device
