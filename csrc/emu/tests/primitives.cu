#include "emu/tests/faults.cuh"
#include "emu/tests/primitives.cuh"
#include "emu/tests/primitives.h"
#include "emu/tests/races.cuh"
#include "launch.h"

namespace hepfeed::device {
namespace {

constexpr unsigned kThreads = 128;

dim3 blocks_of(int64_t count) { return dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)); }

}  // namespace

void write_indices(const unsigned (&grid)[3], const unsigned (&block)[3], int* indices) {
  launch(kernels::write_indices, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), 0,
         nullptr, indices);
}

void record_order(unsigned blocks, unsigned threads, int* count, int* order) {
  launch(kernels::record_order, dim3(blocks), dim3(threads), 0, nullptr, count, order);
}

void reverse(unsigned threads, size_t dynamic_bytes, int* values) {
  launch(kernels::reverse, dim3(1), dim3(threads), dynamic_bytes, nullptr, values);
}

void read_unset(unsigned blocks, int* found) {
  launch(kernels::read_unset, dim3(blocks), dim3(32), 128, nullptr, found);
}

void vote_in_block(unsigned threads, const int* values, int* results) {
  launch(kernels::vote_in_block, dim3(1), dim3(threads), 0, nullptr, values, results);
}

void vote_in_warp(unsigned mask, const int* values, unsigned* results) {
  launch(kernels::vote_in_warp, dim3(1), dim3(32), 0, nullptr, mask, values, results);
}

void shuffle_integers(int kind, int operand, int width, const int* values, int* results) {
  launch(kernels::shuffle_lanes<int>, dim3(1), dim3(32), 0, nullptr, kind, operand, width, values, results);
}

void shuffle_doubles(int kind, int operand, int width, const double* values, double* results) {
  launch(kernels::shuffle_lanes<double>, dim3(1), dim3(32), 0, nullptr, kind, operand, width, values,
         results);
}

void shuffle_halves(int* values) { launch(kernels::shuffle_halves, dim3(1), dim3(32), 0, nullptr, values); }

void pass_round(int rounds, int* values) {
  launch(kernels::pass_round, dim3(1), dim3(32), 0, nullptr, rounds, values);
}

void change_integers(unsigned blocks, unsigned threads, int* integers, unsigned* naturals,
                     unsigned long long* large, float* floats, double* doubles) {
  launch(kernels::change_integers<int>, dim3(blocks), dim3(threads), 0, nullptr, integers);
  launch(kernels::change_integers<unsigned>, dim3(blocks), dim3(threads), 0, nullptr, naturals);
  launch(kernels::change_integers<unsigned long long>, dim3(blocks), dim3(threads), 0, nullptr, large);
  launch(kernels::add_floats<float>, dim3(blocks), dim3(threads), 0, nullptr, floats);
  launch(kernels::add_floats<double>, dim3(blocks), dim3(threads), 0, nullptr, doubles);
}

void copy_late(int wait, int valid, const void* from, void* late) {
  launch(kernels::copy_late, dim3(1), dim3(32), 0, nullptr, wait, valid, static_cast<const int4*>(from),
         static_cast<int4*>(late));
}

void multiply_fragments(int type, const uint32_t* a, const uint32_t* b, float* d) {
  if (type == 0) launch(kernels::multiply_fragments<0>, dim3(1), dim3(32), 0, nullptr, a, b, d);
  if (type == 1) launch(kernels::multiply_fragments<1>, dim3(1), dim3(32), 0, nullptr, a, b, d);
  if (type == 2) launch(kernels::multiply_fragments<2>, dim3(1), dim3(32), 0, nullptr, a, b, d);
}

void load_fragments(int kind, const void* rows, uint32_t* registers) {
  launch(kernels::load_fragments, dim3(1), dim3(32), 0, nullptr, kind, static_cast<const uint4*>(rows),
         registers);
}

void widen(int type, int64_t count, const uint16_t* numbers, float* wide) {
  if (type == 0)
    launch(kernels::widen<Half>, blocks_of(count), dim3(kThreads), 0, nullptr, count,
           reinterpret_cast<const Half*>(numbers), wide);
  else
    launch(kernels::widen<BFloat16>, blocks_of(count), dim3(kThreads), 0, nullptr, count,
           reinterpret_cast<const BFloat16*>(numbers), wide);
}

void narrow(int type, int64_t count, const float* numbers, uint16_t* narrowed) {
  if (type == 0)
    launch(kernels::narrow<Half>, blocks_of(count), dim3(kThreads), 0, nullptr, count, numbers,
           reinterpret_cast<Half*>(narrowed));
  else
    launch(kernels::narrow<BFloat16>, blocks_of(count), dim3(kThreads), 0, nullptr, count, numbers,
           reinterpret_cast<BFloat16*>(narrowed));
}

void round_to_tf32(int64_t count, const float* numbers, uint32_t* rounded) {
  launch(kernels::round_to_tf32, blocks_of(count), dim3(kThreads), 0, nullptr, count, numbers, rounded);
}

void count_bits(int64_t count, const uint64_t* words, uint64_t* results) {
  launch(kernels::count_bits, blocks_of(count), dim3(kThreads), 0, nullptr, count, words, results);
}

void misbehave(int misdeed, unsigned threads, size_t dynamic_bytes, const void* global, void* result) {
  launch(kernels::misbehave, dim3(1), dim3(threads), dynamic_bytes, nullptr,
         static_cast<kernels::Misdeed>(misdeed), static_cast<const int4*>(global),
         static_cast<float4*>(result));
}

void race(int order, int* values) {
  launch(kernels::race, dim3(2), dim3(64), 0, nullptr, static_cast<kernels::Order>(order), values);
}

}  // namespace hepfeed::device
