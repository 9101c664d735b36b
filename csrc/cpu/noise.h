// Noise and drop-out: each item's random numbers are a function of its event and its place in the event.
//
// Item i of event e is item offsets[e] + i of the arrays and draws from the stream of (key, counters[e]), see
// philox.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/convert.h"

namespace hepfeed {

struct Events {
  const uint64_t* key;
  const uint64_t* counters;
  const int64_t* offsets;
  size_t count;
};

// out = x + sigma n, or x + sigma |x| n where `relative`, with the normal number n of philox_normal; where
// `only_active`, items that are 0 stay.  The output is f32 or f64.
void gaussian_noise(const uint8_t* in, Type type, uint8_t* out, Type out_type, const Events& events,
                    double sigma, bool relative, bool only_active);

// The largest mean of a Poisson number: counts are exact in double far beyond, the logarithm of their
// probability is not.
constexpr double kPoissonMean = 0x1p40;

// out = k / scale with k from the Poisson distribution of mean m = x scale; 0 for m = 0.
//
// The item's numbers u are those of blocks 1 + i, 1 + i + 2^40, 1 + i + 2 * 2^40, ... of the stream, 4 of
// each. Below m = 10 it is the least k with u < sum over j <= k of e^-m m^j / j!; above, Hoermann's
// transformed rejection (PTRS, Insurance: Mathematics and Economics 12, 1993), which takes two at each
// attempt.
//
// Returns the first item whose mean is negative, NaN or above kPoissonMean, or -1.
int64_t poisson_noise(const uint8_t* in, Type type, uint8_t* out, Type out_type, const Events& events,
                      double scale);

// out = 0 where u < probability for the item's uniform number u of philox_uniform, else x; items of `item`
// bytes.
void drop_items(const uint8_t* in, uint8_t* out, size_t item, const Events& events, double probability);

// Zeroes part s of (events, outer, slices, inner bytes) where keep (events, slices) is 0.
void drop_slices(const uint8_t* in, uint8_t* out, size_t events, size_t outer, size_t slices,
                 size_t inner_bytes, const uint8_t* keep);

}  // namespace hepfeed
