#include "cpu/philox.h"

#include <algorithm>
#include <cmath>

#include "cpu/vector_math.h"

namespace hepfeed {
namespace {

constexpr size_t kWords = 256;

}  // namespace

void philox_raw(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                uint64_t* out) {
  for (size_t e = 0; e < events; ++e) {
    const Stream stream = stream_of(key, counters, e);
    const auto count = static_cast<uint64_t>(offsets[e + 1] - offsets[e]);
    uint64_t* to = out + offsets[e];
    for (uint64_t b = 0; b < count / 4; ++b) philox_block(stream, b + 1, to + 4 * b);
    if (count % 4) {
      uint64_t last[4];
      philox_block(stream, count / 4 + 1, last);
      std::copy(last, last + count % 4, to + count / 4 * 4);
    }
  }
}

void philox_uniform(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                    double low, double high, double* out) {
  const double span = high - low;
  for (size_t e = 0; e < events; ++e) {
    const Stream stream = stream_of(key, counters, e);
    const auto count = static_cast<uint64_t>(offsets[e + 1] - offsets[e]);
    double* to = out + offsets[e];
    uint64_t words[kWords];
    for (uint64_t i = 0; i < count; i += kWords) {
      const size_t some = std::min<uint64_t>(kWords, count - i);
      words_of(stream, i, some, words);
      for_isa([=, at = to + i, from = words]() HEPFEED_INLINE {
        for (size_t k = 0; k < some; ++k) at[k] = low + span * unit_of(from[k]);
      });
    }
  }
}

void normals_of(const Stream& stream, uint64_t first, double* out) {
  constexpr size_t kPairs = kNormals / 2;
  uint64_t radial_words[kPairs], angular_words[kPairs];
  for (size_t b = 0; b < kNormals / 4; ++b) {
    uint64_t words[4];
    philox_block(stream, first / 4 + b + 1, words);
    radial_words[2 * b] = words[0];
    angular_words[2 * b] = words[1];
    radial_words[2 * b + 1] = words[2];
    angular_words[2 * b + 1] = words[3];
  }
  double x_buffer[kPairs], y_buffer[kPairs];
  for_isa([=, x = x_buffer, y = y_buffer, radial = radial_words, angular = angular_words]() HEPFEED_INLINE {
    for (size_t j = 0; j < kPairs; ++j) {
      const double radius = std::sqrt(-2.0 * log_of(1.0 - unit_of(radial[j])));
      double sine, cosine;
      turn_of(unit_of(angular[j]), &sine, &cosine);
      x[j] = radius * cosine;
      y[j] = radius * sine;
    }
    for (size_t j = 0; j < kPairs; ++j) {
      out[2 * j] = x[j];
      out[2 * j + 1] = y[j];
    }
  });
}

void few_normals_of(const Stream& stream, uint64_t first, double* out) {
  uint64_t words[4];
  philox_block(stream, first / 4 + 1, words);
  for (int j = 0; j < 4; j += 2) {
    const double radius = std::sqrt(-2.0 * log_of(1.0 - unit_of(words[j])));
    double sine, cosine;
    turn_of(unit_of(words[j + 1]), &sine, &cosine);
    out[j] = radius * cosine;
    out[j + 1] = radius * sine;
  }
}

void philox_normal(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                   double* out) {
  for (size_t e = 0; e < events; ++e) {
    const Stream stream = stream_of(key, counters, e);
    const auto count = static_cast<uint64_t>(offsets[e + 1] - offsets[e]);
    double* to = out + offsets[e];
    uint64_t i = 0;
    for (; i + kNormals <= count; i += kNormals) normals_of(stream, i, to + i);
    // A rest of one or two is what most steps ask for: without the vectors.
    for (; i < count; i += 4) {
      double made[4];
      few_normals_of(stream, i, made);
      std::copy(made, made + std::min<uint64_t>(4, count - i), to + i);
    }
  }
}

}  // namespace hepfeed
