// Launchers of the kernels that test the emulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed::device {

void write_indices(const unsigned (&grid)[3], const unsigned (&block)[3], int* indices);
void record_order(unsigned blocks, unsigned threads, int* count, int* order);
void reverse(unsigned threads, size_t dynamic_bytes, int* values);
void read_unset(unsigned blocks, int* found);
void vote_in_block(unsigned threads, const int* values, int* results);
void vote_in_warp(unsigned mask, const int* values, unsigned* results);
void shuffle_integers(int kind, int operand, int width, const int* values, int* results);
void shuffle_doubles(int kind, int operand, int width, const double* values, double* results);
void shuffle_halves(int* values);
void pass_round(int rounds, int* values);
void change_integers(unsigned blocks, unsigned threads, int* integers, unsigned* naturals,
                     unsigned long long* large, float* floats, double* doubles);
void copy_late(int wait, int valid, const void* from, void* late);
void multiply_fragments(int type, const uint32_t* a, const uint32_t* b, float* d);
void load_fragments(int kind, const void* rows, uint32_t* registers);
void widen(int type, int64_t count, const uint16_t* numbers, float* wide);
void narrow(int type, int64_t count, const float* numbers, uint16_t* narrowed);
void round_to_tf32(int64_t count, const float* numbers, uint32_t* rounded);
void count_bits(int64_t count, const uint64_t* words, uint64_t* results);
void misbehave(int misdeed, unsigned threads, size_t dynamic_bytes, const void* global, void* result);
void race(int order, int* values);

}  // namespace hepfeed::device
