// Noise and drop-out: item i of an event draws number i of the event, as in cpu/noise.h.
#pragma once

#include <cmath>

#include "kernels/philox.cuh"
#include "port.h"

namespace hepfeed::device {

// out = x + sigma n, or x + sigma |x| n where `relative`, with the normal number n of the item; where
// `only_active`, items that are 0 stay.
__global__ void add_gaussian_noise(Items in, Results out, Events events, Key key, double sigma, bool relative,
                                   bool only_active) {
  const Quad quad = quad_of(events, blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x);
  if (quad.count == 0) return;
  double x[kFour];
  load_doubles(in, quad.first, quad.count, x);
  bool active = !only_active;
  for (int k = 0; k < kFour; ++k) active |= x[k] != 0;
  if (active) {
    uint64_t words[4];
    double normals[4];
    philox_block(key, quad.event, static_cast<uint64_t>(quad.number) + 1, words);
    normals_of(words, normals);
    for (int k = 0; k < kFour; ++k) {
      if (only_active && x[k] == 0) continue;
      const double size = relative ? __dmul_rn(fabs(x[k]), sigma) : sigma;
      x[k] = __dadd_rn(x[k], __dmul_rn(size, normals[k]));
    }
  }
  store_doubles(x, out, quad.first, quad.count);
}

constexpr double kPoissonMean = 0x1p40;

// The numbers in [0, 1) of one item: blocks 1 + i, 1 + i + 2^40, ... of the event's stream, 4 of each.
class Units {
 public:
  __device__ Units(const Key& key, int64_t event, int64_t item)
      : key_(key), event_(event), block_(static_cast<uint64_t>(item) + 1) {}

  __device__ double next() {
    if (left_ == 0) {
      philox_block(key_, event_, block_, words_);
      block_ += uint64_t{1} << 40;
      left_ = 4;
    }
    --left_;
    const uint64_t word = words_[0];  // the others move up: a number as an index would need local memory
    words_[0] = words_[1], words_[1] = words_[2], words_[2] = words_[3];
    return unit_of(word);
  }

 private:
  const Key& key_;
  int64_t event_;
  uint64_t block_;
  uint64_t words_[4] = {};
  int left_ = 0;
};

__device__ inline double poisson_small(double mean, double u) {
  double term = exp(-mean), sum = term, k = 0;
  // Terms vanish before the sum reaches the largest u only by rounding: then this k is the one.
  while (u >= sum && term > 0) {
    k += 1;
    term = __dmul_rn(term, __ddiv_rn(mean, k));
    sum = __dadd_rn(sum, term);
  }
  return k;
}

// log k!, by Stirling's series above 10.
__device__ inline double log_factorial(double k) {
  static constexpr double kSmall[] = {0.0,
                                      0.0,
                                      0.69314718055994530942,
                                      1.7917594692280550008,
                                      3.1780538303479456197,
                                      4.7874917427820459943,
                                      6.5792512120101009951,
                                      8.5251613610654143002,
                                      10.604602902745250228,
                                      12.801827480081469611,
                                      15.104412573075515295};
  if (k <= 10) return kSmall[static_cast<int>(k)];
  const Rounded x{k + 1}, y = Rounded{1.0} / (x * x);
  const Rounded series = 1.0 / 12 - y * (1.0 / 360 - y * (1.0 / 1260 - y * (1.0 / 1680 - y / Rounded{1188})));
  return ((x - 0.5) * Rounded{log(x.value)} - x + 0.91893853320467274178 + series / x).value;
}

// Hoermann's transformed rejection (PTRS, Insurance: Mathematics and Economics 12, 1993).
__device__ inline double poisson_large(double mean, Units& units) {
  const Rounded b = 0.931 + 2.53 * Rounded{__dsqrt_rn(mean)}, a = -0.059 + 0.02483 * b;
  const Rounded inverse_alpha = 1.1239 + Rounded{1.1328} / (b - 3.4),
                bound = 0.9277 - Rounded{3.6224} / (b - 2.0);
  const Rounded log_mean{log(mean)};
  while (true) {
    const double u = units.next() - 0.5, v = 1 - units.next();
    const Rounded us{0.5 - fabs(u)};
    const double k = floor(((2.0 * a / us + b) * u + mean + 0.43).value);
    if (us.value >= 0.07 && v <= bound.value) return k;
    if (k < 0 || (us.value < 0.013 && v > us.value)) continue;
    const double chance = log((v * inverse_alpha / (a / (us * us) + b)).value);
    if (chance <= (k * log_mean - mean - log_factorial(k)).value) return k;
  }
}

// out = k / scale with k from the Poisson distribution of mean m = x scale, by the algorithm of cpu/noise.h;
// sets *fault where a mean is negative, NaN or above kPoissonMean.
//
// Only exp and log are not rounded alike everywhere: a count differs from the CPU's where a random number of
// 53 bits lies within their last place of a bound.
__global__ void draw_poisson(Items in, Results out, Events events, Key key, double scale,
                             int32_t* __restrict__ fault) {
  const int64_t place = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (place >= events.offsets[events.count] * events.width) return;
  const auto start = [&](int64_t event) { return events.offsets[event] * events.width; };
  const int64_t event = last_before(events.count, place, start);
  const double mean = __dmul_rn(double_at(in.data, in.type, place), scale);
  double count = 0;
  if (!(mean >= 0 && mean <= kPoissonMean)) {
    atomicOr(fault, 1);
  } else if (mean > 0) {
    Units units(key, event, place - start(event));
    count = mean < 10 ? poisson_small(mean, units.next()) : poisson_large(mean, units);
  }
  const double result[kFour] = {__ddiv_rn(count, scale)};
  store_doubles(result, out, place, 1);
}

// out = 0 where the upper 53 bits of the item's number are below `threshold`, else x.
template <class Item>
__global__ void drop_random(const Item* __restrict__ in, Item* __restrict__ out, Events events, Key key,
                            uint64_t threshold) {
  const Quad quad = quad_of(events, blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x);
  if (quad.count == 0) return;
  uint64_t words[4];
  philox_block(key, quad.event, static_cast<uint64_t>(quad.number) + 1, words);
  Four<Item> four = load_four(in + quad.first, quad.count);
  for (int k = 0; k < kFour; ++k)
    if ((words[k] >> 11) < threshold) four.item[k] = 0;
  store_four(four, out + quad.first, quad.count);
}

}  // namespace hepfeed::device
