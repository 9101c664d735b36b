// Philox 4x64 with 10 rounds (Salmon, Moraes, Dror and Shaw, SC 2011): random numbers as a function of a key
// and a counter.
//
// Word i of a stream is word i % 4 of the block with the stream's counter plus 1 + i / 4, as in
// numpy.random.Philox, whose counter goes up before its first block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

struct Stream {
  uint64_t key[2];
  uint64_t counter[4];
};

// The stream of row `event` of counters (events, 4).
inline Stream stream_of(const uint64_t* key, const uint64_t* counters, size_t event) {
  const uint64_t* c = counters + 4 * event;
  return {{key[0], key[1]}, {c[0], c[1], c[2], c[3]}};
}

// What the words of a counter are multiplied with, and what is added to the key from round to round.
constexpr int kRounds = 10;
constexpr uint64_t kFactors[] = {0xD2E7470EE14C6C93u, 0xCA5A826395121157u};
constexpr uint64_t kKeySteps[] = {0x9E3779B97F4A7C15u, 0xBB67AE8584CAA73Bu};

// The block with the stream's counter plus `number`.
inline void philox_block(const Stream& stream, uint64_t number, uint64_t* out) {
  __extension__ typedef unsigned __int128 Wide;
  uint64_t c0 = stream.counter[0] + number, c1 = stream.counter[1], c2 = stream.counter[2],
           c3 = stream.counter[3];
  if (c0 < number && ++c1 == 0 && ++c2 == 0) ++c3;
  uint64_t k0 = stream.key[0], k1 = stream.key[1];
  for (int round = 0; round < kRounds; ++round) {
    const Wide a = static_cast<Wide>(kFactors[0]) * c0, b = static_cast<Wide>(kFactors[1]) * c2;
    c0 = static_cast<uint64_t>(b >> 64) ^ c1 ^ k0;
    c1 = static_cast<uint64_t>(b);
    c2 = static_cast<uint64_t>(a >> 64) ^ c3 ^ k1;
    c3 = static_cast<uint64_t>(a);
    k0 += kKeySteps[0];
    k1 += kKeySteps[1];
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// Each function below writes item i of event e to out[offsets[e] + i], from word i of the stream of (key,
// counters[e]).

void philox_raw(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                uint64_t* out);

// low + (high - low) u, with u the upper 53 bits of the word times 2^-53.
void philox_uniform(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                    double low, double high, double* out);

// Normal numbers by Box and Muller (1958): words 2j and 2j + 1, as u and v in [0, 1), give items 2j and 2j +
// 1: sqrt(-2 log(1 - u)) times cos(2 pi v) and sin(2 pi v).
void philox_normal(const uint64_t* key, const uint64_t* counters, const int64_t* offsets, size_t events,
                   double* out);

constexpr size_t kNormals = 256;

// Words first .. first + count - 1 of a stream, and up to 3 more; `first` is a multiple of 4.
void words_of(const Stream& stream, uint64_t first, size_t count, uint64_t* out);

// Four normal numbers of a stream, from word `first`, a multiple of 4.
void few_normals_of(const Stream& stream, uint64_t first, double* out);

// Items first .. first + kNormals - 1 of a stream's normal numbers; `first` is a multiple of 4.
void normals_of(const Stream& stream, uint64_t first, double* out);

}  // namespace hepfeed
