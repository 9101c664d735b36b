#include "cpu/noise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/philox.h"
#include "cpu/pointwise.h"
#include "cpu/vector_math.h"

namespace hepfeed {
namespace {

static_assert(kNormals == kBlock, "a block of items takes a block of normal numbers");

double unit(uint64_t word) { return static_cast<double>(static_cast<int64_t>(word >> 11)) * 0x1p-53; }

// The numbers in [0, 1) of one item.
class Units {
 public:
  Units(const Stream& stream, uint64_t item) : stream_(stream), block_(item + 1) {}

  double next() {
    if (used_ == 4) {
      philox_block(stream_, block_, words_);
      block_ += uint64_t{1} << 40;
      used_ = 0;
    }
    return unit(words_[used_++]);
  }

 private:
  const Stream& stream_;
  uint64_t block_;
  uint64_t words_[4];
  int used_ = 4;
};

double poisson_small(double mean, double u) {
  double term = std::exp(-mean), sum = term, k = 0;
  // Terms vanish before the sum reaches the largest u only by rounding: then this k is the one.
  while (u >= sum && term > 0) {
    k += 1;
    term *= mean / k;
    sum += term;
  }
  return k;
}

// log k!, by Stirling's series above 10 (its next term is below 1e-16 there after four).
double log_factorial(double k) {
  static const double kSmall[] = {0.0,
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
  const double x = k + 1, y = 1 / (x * x);
  return (x - 0.5) * std::log(x) - x + 0.91893853320467274178 +
         (1.0 / 12 - y * (1.0 / 360 - y * (1.0 / 1260 - y * (1.0 / 1680 - y / 1188)))) / x;
}

double poisson_large(double mean, Units& units) {
  const double b = 0.931 + 2.53 * std::sqrt(mean), a = -0.059 + 0.02483 * b;
  const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4), bound = 0.9277 - 3.6224 / (b - 2);
  const double log_mean = std::log(mean);
  while (true) {
    const double u = units.next() - 0.5, v = 1 - units.next();
    const double us = 0.5 - std::fabs(u);
    const double k = std::floor((2 * a / us + b) * u + mean + 0.43);
    if (us >= 0.07 && v <= bound) return k;
    if (k < 0 || (us < 0.013 && v > us)) continue;
    if (std::log(v * inverse_alpha / (a / (us * us) + b)) <= k * log_mean - mean - log_factorial(k)) return k;
  }
}

constexpr std::ptrdiff_t kFew =
    kBlock / 8;  // active items of a block, below which only their numbers are made

void few_noisy(const Stream& stream, uint64_t first, size_t count, double sigma, bool relative, double* x) {
  for (size_t j = 0; j < count; j += 4) {
    const size_t stop = std::min(j + 4, count);
    if (std::all_of(x + j, x + stop, [](double value) { return value == 0; })) continue;
    double normal[4];
    few_normals_of(stream, first + j, normal);
    for (size_t k = j; k < stop; ++k)
      if (x[k] != 0) x[k] += (relative ? std::fabs(x[k]) * sigma : sigma) * normal[k - j];
  }
}

void all_noisy(const Stream& stream, uint64_t first, size_t count, double sigma, bool relative,
               bool only_active, double* x) {
  double buffer[kBlock];
  normals_of(stream, first, buffer);
  for_isa([=, normal = buffer]() HEPFEED_INLINE {
    for (size_t j = 0; j < count; ++j) {
      const double before = x[j], size = relative ? std::fabs(before) * sigma : sigma;
      const double noisy = before + size * normal[j];
      x[j] = (only_active & (before == 0)) ? 0.0 : noisy;
    }
  });
}

template <class Word>
void drop_words(const uint8_t* in, uint8_t* out, const Stream& stream, uint64_t count, uint64_t threshold) {
  using Loose __attribute__((aligned(1), may_alias)) = Word;
  const auto* from = reinterpret_cast<const Loose*>(in);
  auto* to = reinterpret_cast<Loose*>(out);
  uint64_t buffer[kBlock];
  for (uint64_t i = 0; i < count; i += kBlock) {
    const size_t some = std::min<uint64_t>(kBlock, count - i);
    words_of(stream, i, some, buffer);
    for_isa([=, words = buffer]() HEPFEED_INLINE {
      for (size_t k = 0; k < some; ++k) {
        const Word item = from[i + k];
        to[i + k] = (words[k] >> 11) < threshold ? Word{0} : item;
      }
    });
  }
}

}  // namespace

void gaussian_noise(const uint8_t* in, Type type, uint8_t* out, Type out_type, const Events& events,
                    double sigma, bool relative, bool only_active) {
  const size_t item = bytes_of(type), out_item = bytes_of(out_type);
  double x[kBlock];
  for (size_t e = 0; e < events.count; ++e) {
    const Stream stream = stream_of(events.key, events.counters, e);
    const auto start = static_cast<size_t>(events.offsets[e]),
               stop = static_cast<size_t>(events.offsets[e + 1]);
    for (size_t i = start; i < stop; i += kBlock) {
      const size_t some = std::min(kBlock, stop - i);
      load_block(in + i * item, type, some, x);
      if (only_active && std::count_if(x, x + some, [](double value) { return value != 0; }) <= kFew)
        few_noisy(stream, i - start, some, sigma, relative, x);
      else
        all_noisy(stream, i - start, some, sigma, relative, only_active, x);
      store_block(x, some, out + i * out_item, out_type);
    }
  }
}

int64_t poisson_noise(const uint8_t* in, Type type, uint8_t* out, Type out_type, const Events& events,
                      double scale) {
  const size_t item = bytes_of(type), out_item = bytes_of(out_type);
  double x[kBlock];
  for (size_t e = 0; e < events.count; ++e) {
    const Stream stream = stream_of(events.key, events.counters, e);
    const auto start = static_cast<size_t>(events.offsets[e]),
               stop = static_cast<size_t>(events.offsets[e + 1]);
    for (size_t i = start; i < stop; i += kBlock) {
      const size_t some = std::min(kBlock, stop - i);
      load_block(in + i * item, type, some, x);
      for (size_t j = 0; j < some; ++j) {
        const double mean = x[j] * scale;
        if (!(mean >= 0 && mean <= kPoissonMean)) return static_cast<int64_t>(i + j);
        if (mean == 0) {
          x[j] = 0;
          continue;
        }
        Units units(stream, i + j - start);
        x[j] = (mean < 10 ? poisson_small(mean, units.next()) : poisson_large(mean, units)) / scale;
      }
      store_block(x, some, out + i * out_item, out_type);
    }
  }
  return -1;
}

void drop_items(const uint8_t* in, uint8_t* out, size_t item, const Events& events, double probability) {
  // u < p for u = word 2^-53 is word < ceil(p 2^53).
  const auto threshold = static_cast<uint64_t>(std::ceil(probability * 0x1p53));
  for (size_t e = 0; e < events.count; ++e) {
    const Stream stream = stream_of(events.key, events.counters, e);
    const auto start = static_cast<size_t>(events.offsets[e]);
    const auto count = static_cast<uint64_t>(events.offsets[e + 1] - events.offsets[e]);
    const uint8_t* from = in + start * item;
    uint8_t* to = out + start * item;
    if (item == 1) drop_words<uint8_t>(from, to, stream, count, threshold);
    if (item == 2) drop_words<uint16_t>(from, to, stream, count, threshold);
    if (item == 4) drop_words<uint32_t>(from, to, stream, count, threshold);
    if (item == 8) drop_words<uint64_t>(from, to, stream, count, threshold);
  }
}

void drop_slices(const uint8_t* in, uint8_t* out, size_t events, size_t outer, size_t slices,
                 size_t inner_bytes, const uint8_t* keep) {
  for (size_t e = 0; e < events; ++e, keep += slices)
    for (size_t o = 0; o < outer; ++o)
      for (size_t s = 0; s < slices; ++s, in += inner_bytes, out += inner_bytes) {
        if (keep[s])
          std::memcpy(out, in, inner_bytes);
        else
          std::memset(out, 0, inner_bytes);
      }
}

}  // namespace hepfeed
