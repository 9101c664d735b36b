// Random numbers of events, by Philox 4x64 with 10 rounds (Salmon, Moraes, Dror and Shaw, SC 2011): the same
// numbers as cpu/philox.h, each computed where it is needed, from its place alone.
#pragma once

#include "kernels/events.cuh"
#include "kernels/rounded.cuh"
#include "port.h"

namespace hepfeed::device {

// Numbers 4 (number - 1) .. 4 number - 1 of an event.
__device__ inline void philox_block(const Key& key, int64_t event, uint64_t number, uint64_t (&out)[4]) {
  uint64_t c0 = number, c1 = static_cast<uint64_t>(key.ids[2 * event + 1]),
           c2 = static_cast<uint64_t>(key.ids[2 * event]), c3 = key.epoch, k0 = key.seed, k1 = key.step;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    constexpr uint64_t kFirst = 0xD2E7470EE14C6C93u, kSecond = 0xCA5A826395121157u;
    const uint64_t next0 = __umul64hi(kSecond, c2) ^ c1 ^ k0, next2 = __umul64hi(kFirst, c0) ^ c3 ^ k1;
    c1 = kSecond * c2;
    c3 = kFirst * c0;
    c0 = next0;
    c2 = next2;
    k0 += 0x9E3779B97F4A7C15u;
    k1 += 0xBB67AE8584CAA73Bu;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// The upper 53 bits as a number in [0, 1), as numpy.random makes one.
__device__ inline double unit_of(uint64_t word) {
  return static_cast<double>(static_cast<int64_t>(word >> 11)) * 0x1p-53;
}

// Four normal numbers of four words, by Box and Muller (1958).
__device__ inline void normals_of(const uint64_t (&words)[4], double (&out)[4]) {
  for (int j = 0; j < 4; j += 2) {
    const double radius = __dsqrt_rn((-2.0 * Rounded{log_of(1.0 - unit_of(words[j]))}).value);
    double sine, cosine;
    turn_of(unit_of(words[j + 1]), &sine, &cosine);
    out[j] = __dmul_rn(radius, cosine);
    out[j + 1] = __dmul_rn(radius, sine);
  }
}

// out[offsets[e] + i] = number i of event e: uint64 for raw ones, double for others; uniform ones are
// low + span u.  One thread makes four numbers, which is one block.
__global__ void draw_numbers(Events events, Key key, Drawn drawn, double low, double span,
                             void* __restrict__ out) {
  const Quad quad = quad_of(events, blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x);
  if (quad.count == 0) return;
  uint64_t words[4];
  philox_block(key, quad.event, static_cast<uint64_t>(quad.number) + 1, words);
  if (drawn == Drawn::raw) {
    Four<uint64_t> four;
    for (int k = 0; k < kFour; ++k) four.item[k] = words[k];
    store_four(four, static_cast<uint64_t*>(out) + quad.first, quad.count);
    return;
  }
  double numbers[4];
  if (drawn == Drawn::normal) {
    normals_of(words, numbers);
  } else {
    for (int k = 0; k < kFour; ++k) numbers[k] = __dadd_rn(low, __dmul_rn(span, unit_of(words[k])));
  }
  store_doubles(numbers, {out, Number::f64}, quad.first, quad.count);
}

}  // namespace hepfeed::device
