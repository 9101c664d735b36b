// The twins of mma.sync and ldmatrix: for all 32 lanes of a warp together.
//
// A product of matrices is d[i][j] = ((d[i][j] + a[i][0] b[0][j]) + a[i][1] b[1][j]) + ... in float32, k
// rising.  Products of 16-bit numbers and of TF32 are exact in float32 unless they leave its range; hardware
// adds in an order, and with bits beyond float32, that it doesn't document.
#pragma once

#include <cstdint>

#include "emu/place.h"
#include "float16.h"

namespace hepfeed::emulated {

enum class Operands { kHalf, kBFloat16, kTF32 };

void multiply(Operands operands, float* d, const uint32_t* a, const uint32_t* b, Place place);
void load_matrices(int matrices, bool transposed, uint32_t* r, const void* shared_row, Place place);

}  // namespace hepfeed::emulated

namespace hepfeed::device {

inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Half,
                        emulated::Place place = emulated::Place::here()) {
  emulated::multiply(emulated::Operands::kHalf, d, a, b, place);
}

inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], BFloat16,
                        emulated::Place place = emulated::Place::here()) {
  emulated::multiply(emulated::Operands::kBFloat16, d, a, b, place);
}

inline void mma_16x8x8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            emulated::Place place = emulated::Place::here()) {
  emulated::multiply(emulated::Operands::kTF32, d, a, b, place);
}

inline void load_matrix_x4(uint32_t (&r)[4], const void* shared_row,
                           emulated::Place place = emulated::Place::here()) {
  emulated::load_matrices(4, false, r, shared_row, place);
}

inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* shared_row,
                                      emulated::Place place = emulated::Place::here()) {
  emulated::load_matrices(4, true, r, shared_row, place);
}

inline void load_matrix_x2(uint32_t (&r)[2], const void* shared_row,
                           emulated::Place place = emulated::Place::here()) {
  emulated::load_matrices(2, false, r, shared_row, place);
}

inline void load_matrix_x2_transposed(uint32_t (&r)[2], const void* shared_row,
                                      emulated::Place place = emulated::Place::here()) {
  emulated::load_matrices(2, true, r, shared_row, place);
}

}  // namespace hepfeed::device
