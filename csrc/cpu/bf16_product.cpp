#include "cpu/bf16_product.h"

#if HEPFEED_X86

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/scratch.h"

namespace hepfeed {
namespace {

// The intrinsics of the tiles do not tell GCC which memory they read.
inline void finish_writes() { __asm__ volatile("" ::: "memory"); }

// Rows and columns of all tiles: Intel's manual of the architecture, volume 1, "Programming with Intel AMX".
struct alignas(kLineBytes) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

constexpr TileConfig whole_tiles() {
  TileConfig config{};
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = kStep * sizeof(bfloat16);
    config.rows[tile] = kTile;
  }
  return config;
}

// In static memory, where all of it is written before the intrinsic reads it.
constexpr TileConfig kConfig = whole_tiles();

HEPFEED_TARGET_AMX void load_config() { _tile_loadconfig(&kConfig); }

HEPFEED_TARGET_AMX void release_tiles() { _tile_release(); }

// M x N tiles of a product to `made`, whose rows lie made_row items apart.  With `add`, to what is there.
template <int M, int N>
HEPFEED_TARGET_AMX void make_tiles(const Product& p, const bfloat16* left, const bfloat16* right, bool add,
                                   float* made, size_t made_row) {
  const size_t made_bytes = made_row * sizeof(float), left_bytes = p.left_row * sizeof(bfloat16);
  constexpr size_t kRightBytes = kStep * sizeof(bfloat16);
  finish_writes();
  if (add) {
    _tile_loadd(0, made, made_bytes);
    if constexpr (N == 2) _tile_loadd(1, made + kTile, made_bytes);
    if constexpr (M == 2) _tile_loadd(2, made + kTile * made_row, made_bytes);
    if constexpr (M == 2 && N == 2) _tile_loadd(3, made + kTile * made_row + kTile, made_bytes);
  } else {
    _tile_zero(0);
    if constexpr (N == 2) _tile_zero(1);
    if constexpr (M == 2) _tile_zero(2);
    if constexpr (M == 2 && N == 2) _tile_zero(3);
  }
  for (size_t step = 0; step < p.steps; ++step) {
    _tile_loadd(4, left, left_bytes);
    _tile_loadd(6, right, kRightBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N == 2) {
      _tile_loadd(7, right + p.steps * kPackedTile, kRightBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (M == 2) {
      _tile_loadd(5, left + kTile * p.left_row, left_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (M == 2 && N == 2) _tile_dpbf16ps(3, 5, 7);
    left += p.left_step;
    right += kPackedTile;
  }
  _tile_stored(0, made, made_bytes);
  if constexpr (N == 2) _tile_stored(1, made + kTile, made_bytes);
  if constexpr (M == 2) _tile_stored(2, made + kTile * made_row, made_bytes);
  if constexpr (M == 2 && N == 2) _tile_stored(3, made + kTile * made_row + kTile, made_bytes);
}

// M tiles of rows of a product, from row `first_row` on, with N tiles of columns.
template <int M, int N>
HEPFEED_TARGET_AMX void add_tiles(const Product& p, size_t first_row, const bfloat16* right, float* sums) {
  const bfloat16* left = p.left + first_row * p.left_row;
  if (!p.to) return make_tiles<M, N>(p, left, right, true, sums + first_row * p.sums_row, p.sums_row);
  alignas(kLineBytes) float made[M * kTile * N * kTile];
  make_tiles<M, N>(p, left, right, false, made, N * kTile);
  const int32_t *to = p.to + first_row, first = p.first;
  const size_t rows = std::min(M * kTile, p.rows - first_row), sums_row = p.sums_row;
  for (size_t r = 0; r < rows; ++r) {
    float* row = sums + static_cast<size_t>(to[r] - first) * sums_row;
    for (size_t n = 0; n < N; ++n, row += kTile)
      _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), _mm512_load_ps(made + (r * N + n) * kTile)));
  }
}

// N tiles of columns, from tile `first` on.
template <int N>
HEPFEED_TARGET_AMX void add_columns_amx(const Product& p, size_t first) {
  const bfloat16* right = p.right + first * p.steps * kPackedTile;
  float* sums = p.sums + first * kTile;
  size_t row = 0;
  for (; row + kTile < p.rows; row += 2 * kTile) add_tiles<2, N>(p, row, right, sums);
  if (row < p.rows) add_tiles<1, N>(p, row, right, sums);
}

// As many rows as keep the sums of two tiles, and what they need, in the 32 registers.
constexpr size_t kRegisterRows = 8;

template <int N>
HEPFEED_TARGET_AVX512_BF16 void add_columns_avx512(const Product& p, size_t first_row, size_t first_tile) {
  const bfloat16* left = p.left + first_row * p.left_row;
  const bfloat16* right = p.right + first_tile * p.steps * kPackedTile;
  __m512 sum[kRegisterRows][N];
  for (size_t r = 0; r < kRegisterRows; ++r)
    for (int n = 0; n < N; ++n) sum[r][n] = _mm512_setzero_ps();
  for (size_t step = 0; step < p.steps; ++step, left += p.left_step, right += kPackedTile)
    for (size_t t = 0; t < kStep; t += 2) {
      __m512i columns[N];
      for (size_t n = 0; n < N; ++n)
        columns[n] = _mm512_loadu_si512(right + n * p.steps * kPackedTile + t * kTile);
      for (size_t r = 0; r < kRegisterRows; ++r) {
        int32_t two;
        std::memcpy(&two, left + r * p.left_row + t, sizeof two);
        const __m512i terms = _mm512_set1_epi32(two);
        for (int n = 0; n < N; ++n)
          sum[r][n] = _mm512_dpbf16_ps(sum[r][n], (__m512bh)terms, (__m512bh)columns[n]);
      }
    }
  const size_t rows = std::min(kRegisterRows, p.rows - first_row);
  for (size_t r = 0; r < kRegisterRows; ++r) {
    if (r >= rows) break;
    const size_t row = p.to ? static_cast<size_t>(p.to[first_row + r] - p.first) : first_row + r;
    float* to = p.sums + row * p.sums_row + first_tile * kTile;
    for (size_t n = 0; n < N; ++n)
      _mm512_storeu_ps(to + n * kTile, _mm512_add_ps(_mm512_loadu_ps(to + n * kTile), sum[r][n]));
  }
}

}  // namespace

void add_product_avx512(const Product& p) {
  size_t tile = 0;
  for (; tile + 2 <= p.tiles; tile += 2)
    for (size_t row = 0; row < p.rows; row += kRegisterRows) add_columns_avx512<2>(p, row, tile);
  if (tile < p.tiles)
    for (size_t row = 0; row < p.rows; row += kRegisterRows) add_columns_avx512<1>(p, row, tile);
}

void add_product_amx(const Product& p) {
  size_t tile = 0;
  for (; tile + 2 <= p.tiles; tile += 2) add_columns_amx<2>(p, tile);
  if (tile < p.tiles) add_columns_amx<1>(p, tile);
}

TileState::TileState(bool wanted) : held_(wanted) {
  if (held_) load_config();
}

TileState::~TileState() {
  if (held_) release_tiles();
}

}  // namespace hepfeed

#endif
