#include "emu/tensor_core.h"

#include <cstring>

#include "emu/conversions.h"
#include "emu/lanes.h"
#include "emu/processor.h"
#include "emu/sanitizers.h"

namespace hepfeed::emulated {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kRows = 16, kColumns = 8;

struct Fragments {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

struct MatrixLoad {
  uint32_t* r;
  const void* row;
};

const Fragments& fragments(const Thread* lane) { return *static_cast<const Fragments*>(lane->payload); }

template <class T>
struct Numbers {
  static constexpr int kPerRegister = 2;
  static float at(uint32_t bits, int place) {
    return device::to_float(T{static_cast<uint16_t>(bits >> 16 * place)});
  }
};

struct TF32 {};

template <>
struct Numbers<TF32> {
  static constexpr int kPerRegister = 1;
  static float at(uint32_t bits, int) { return __uint_as_float(bits & ~0x1fffu); }  // the rest isn't read
};

// Lane 4 g + t has, in register r of a, the row g + 8 (r mod 2) and the columns from (t + 4 (r / 2)) p on for
// p numbers a register; of b the column g and the rows from (t + 4 r) p on; of d the row g + 8 (r / 2) and
// the column 2 t + r mod 2.  PTX ISA, "Matrix Fragments for mma.m16n8k16" and "m16n8k8".
template <class T>
void multiply_lanes(Thread* const* lanes, Place) {
  constexpr int p = Numbers<T>::kPerRegister, depth = 8 * p;
  float a[kRows][depth], b[depth][kColumns], d[kRows][kColumns];
  for (int lane = 0; lane < static_cast<int>(kLanes); ++lane) {
    const Fragments& own = fragments(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < p; ++i) {
      for (int r = 0; r < 4; ++r) a[g + 8 * (r % 2)][(t + 4 * (r / 2)) * p + i] = Numbers<T>::at(own.a[r], i);
      for (int r = 0; r < 2; ++r) b[(t + 4 * r) * p + i][g] = Numbers<T>::at(own.b[r], i);
    }
    for (int r = 0; r < 4; ++r) d[g + 8 * (r / 2)][2 * t + r % 2] = own.d[r];
  }
  for (int i = 0; i < kRows; ++i)
    for (int k = 0; k < depth; ++k)
      for (int j = 0; j < kColumns; ++j) d[i][j] += a[i][k] * b[k][j];
  for (int lane = 0; lane < static_cast<int>(kLanes); ++lane)
    for (int r = 0; r < 4; ++r)
      fragments(lanes[lane]).d[r] = d[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2];
}

// Row i of matrix m lies where lane 8 m + i says.  Lane l takes the numbers 2 (l mod 4) and the next of row
// l / 4; transposed, the number l / 4 of the rows 2 (l mod 4) and the next.
template <int kMatrices, bool kTransposed>
void load_lanes(Thread* const* lanes, Place) {
  for (int matrix = 0; matrix < kMatrices; ++matrix) {
    uint16_t numbers[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(numbers[row], static_cast<const MatrixLoad*>(lanes[8 * matrix + row]->payload)->row, 16);
    for (int lane = 0; lane < static_cast<int>(kLanes); ++lane) {
      const int row = lane / 4, column = 2 * (lane % 4);
      const uint32_t low = kTransposed ? numbers[column][row] : numbers[row][column];
      const uint32_t high = kTransposed ? numbers[column + 1][row] : numbers[row][column + 1];
      static_cast<const MatrixLoad*>(lanes[lane]->payload)->r[matrix] = low | high << 16;
    }
  }
}

}  // namespace

void multiply(Operands operands, float* d, const uint32_t* a, const uint32_t* b, Place place) {
  Fragments payload{d, a, b};
  switch (operands) {
    case Operands::kHalf:
      return meet_lanes(kAllLanes, &multiply_lanes<device::Half>, &payload, false, place);
    case Operands::kBFloat16:
      return meet_lanes(kAllLanes, &multiply_lanes<device::BFloat16>, &payload, false, place);
    case Operands::kTF32:
      return meet_lanes(kAllLanes, &multiply_lanes<TF32>, &payload, false, place);
  }
}

void load_matrices(int matrices, bool transposed, uint32_t* r, const void* shared_row, Place place) {
  Processor& processor = Processor::here();
  if (processor.current().number % kLanes < 8u * static_cast<unsigned>(matrices)) {
    if (!processor.block().shared.holds(shared_row, 16))
      processor.fault("a row of a matrix that isn't 16 bytes of one shared array", place);
    if (reinterpret_cast<uintptr_t>(shared_row) % 16 != 0)
      processor.fault("a row of a matrix at an address that isn't aligned to 16 bytes", place);
    note_read(shared_row, 16);
  }
  MatrixLoad payload{r, shared_row};
  WarpWork work;
  if (matrices == 4)
    work = transposed ? &load_lanes<4, true> : &load_lanes<4, false>;
  else
    work = transposed ? &load_lanes<2, true> : &load_lanes<2, false>;
  meet_lanes(kAllLanes, work, &payload, false, place);
}

}  // namespace hepfeed::emulated
