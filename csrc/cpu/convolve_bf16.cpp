// Rows of the pairs of a tap are gathered, 32 at a time, multiplied as tiles, and added to float32 sums of a
// block of output rows, which stay in the cache over all taps and are rounded at its end.
#include "cpu/convolve_bf16.h"

#if HEPFEED_X86

#include <algorithm>
#include <atomic>

#include "cpu/bf16_pack.h"
#include "cpu/bf16_product.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

// One group of channels of a product of rows.
struct Group {
  size_t from, to;  // channels of a row that is read, and of a sum
  size_t steps, tiles;

  Group(size_t from, size_t to)
      : from(from), to(to), steps((from + kStep - 1) / kStep), tiles((to + kTile - 1) / kTile) {}

  size_t packed() const { return steps * tiles * kPackedTile; }
};

// W[k] of a group, packed from its items (to, from), which lie row_items apart.
HEPFEED_TARGET_AVX512_BF16 void pack_forward(const bfloat16* weight, size_t row_items, const Group& group,
                                             bfloat16* packed) {
  for (size_t tile = 0; tile < group.tiles; ++tile)
    for (size_t step = 0; step < group.steps; ++step, packed += kPackedTile) {
      const bfloat16* first = weight + tile * kTile * row_items + step * kStep;
      const size_t rows = items_of_block(group.to, tile * kTile, kTile);
      const __mmask32 mask = low_bits(items_of_block(group.from, step * kStep, kStep));
      __m512i items[kTile];
      for (size_t r = 0; r < kTile; ++r)
        items[r] = _mm512_maskz_loadu_epi16(r < rows ? mask : 0, first + (r < rows ? r * row_items : 0));
      transpose(items);
      for (size_t t = 0; t < kTile; ++t) _mm512_store_si512(packed + t * kStep, items[t]);
    }
}

// The same of items (from, to).
HEPFEED_TARGET_AVX512_BF16 void pack_back(const bfloat16* weight, size_t row_items, const Group& group,
                                          bfloat16* packed) {
  for (size_t tile = 0; tile < group.tiles; ++tile) {
    const auto mask = static_cast<__mmask16>(low_bits(items_of_block(group.to, tile * kTile, kTile)));
    for (size_t t = 0; t < group.steps * kStep; t += 2, packed += kStep) {
      const bool even = t < group.from, odd = t + 1 < group.from;
      const bfloat16* row = weight + (even ? t * row_items : 0) + tile * kTile;
      const __m512i items = pair_rows(row, row + (odd ? row_items : 0), even ? mask : 0, odd ? mask : 0);
      _mm512_store_si512(packed, items);
    }
  }
}

// All that the blocks of output rows share.
struct RowProduct {
  const bfloat16* in;
  size_t in_rows;
  const bfloat16* packed;  // (taps, groups, group.packed())
  const bfloat16* bias;    // or null
  const PairLists& pairs;
  bfloat16* out;
  size_t out_rows;
  Group group;
  size_t groups;
  bool tiles;

  size_t in_channels() const { return groups * group.from; }
  size_t out_channels() const { return groups * group.to; }
  size_t sums_row() const { return groups * group.tiles * kTile; }
};

// So many input rows are gathered at a time.
constexpr size_t kGathered = 32;

// A block of output rows, and the memory to work in.
struct RowBlock {
  size_t first, rows;
  float* sums;     // (rows, sums_row)
  bfloat16* left;  // (kGathered, 32 steps)
};

HEPFEED_TARGET_AVX512_BF16 void begin_sums(const RowProduct& work, const RowBlock& block) {
  const size_t width = work.sums_row();
  if (!work.bias) return std::fill(block.sums, block.sums + block.rows * width, 0.0f);
  for (size_t g = 0; g < work.groups; ++g)
    for (size_t c = 0; c < work.group.tiles * kTile; ++c) {
      const float value = c < work.group.to ? widen(work.bias[g * work.group.to + c]) : 0.0f;
      block.sums[g * work.group.tiles * kTile + c] = value;
    }
  for (size_t r = 1; r < block.rows; ++r) std::copy(block.sums, block.sums + width, block.sums + r * width);
}

HEPFEED_TARGET_AVX512_BF16 void round_sums(const RowProduct& work, const RowBlock& block) {
  const size_t to = work.group.to, sums_row = work.sums_row(), out_row = work.out_channels();
  for (size_t g = 0; g < work.groups; ++g) {
    const float* sums = block.sums + g * work.group.tiles * kTile;
    bfloat16* out = work.out + block.first * out_row + g * to;
    for (size_t r = 0; r < block.rows; ++r, sums += sums_row, out += out_row)
      for (size_t c = 0; c < to; c += kTile) {
        const auto mask = static_cast<__mmask16>(low_bits(items_of_block(to, c, kTile)));
        _mm256_mask_storeu_epi16(out + c, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_load_ps(sums + c)));
      }
  }
}

// The channels of one group of the rows `in`, with zeros up to whole steps.
HEPFEED_TARGET_AVX512_BF16 void gather(const bfloat16* values, size_t row_items, const int32_t* in,
                                       size_t count, const Group& group, bfloat16* to) {
  const size_t whole = group.from / kStep * kStep;
  const __mmask32 rest = low_bits(group.from - whole);
  for (size_t r = 0; r < count; ++r) {
    const bfloat16* row = values + static_cast<size_t>(in[r]) * row_items;
    for (size_t c = 0; c < whole; c += kStep, to += kStep)
      _mm512_store_si512(to, _mm512_loadu_si512(row + c));
    if (!rest) continue;
    _mm512_store_si512(to, _mm512_maskz_loadu_epi16(rest, row + whole));
    to += kStep;
  }
}

// Adds the products of `count` pairs of a tap from `begin` on, at most kGathered.
HEPFEED_TARGET_AVX512_BF16 void add_pairs(const RowProduct& work, const RowBlock& block, size_t tap,
                                          int64_t begin, size_t count) {
  const Group& group = work.group;
  Product product{};
  product.left = block.left;
  product.left_row = group.steps * kStep;
  product.left_step = kStep;
  product.rows = count;
  product.steps = group.steps;
  product.tiles = group.tiles;
  product.sums_row = work.sums_row();
  product.to = work.pairs.out + begin;
  product.first = static_cast<int32_t>(block.first);
  for (size_t g = 0; g < work.groups; ++g) {
    gather(work.in + g * group.from, work.in_channels(), work.pairs.in + begin, count, group, block.left);
    product.right = work.packed + (tap * work.groups + g) * group.packed();
    product.sums = block.sums + g * group.tiles * kTile;
    work.tiles ? add_product_amx(product) : add_product_avx512(product);
  }
}

// Makes block `index` of the rows; false where a pair is bad.
bool make_rows(const RowProduct& work, const RowBlocks& blocks, size_t index, const RowBlock& block) {
  const TileState state(work.tiles);
  begin_sums(work, block);
  const PairLists& pairs = work.pairs;
  for (size_t tap = 0; tap < pairs.taps; ++tap) {
    const PairRange range = blocks.range(tap, index);
    if (!in_order(pairs, range, work.in_rows, blocks.first_row(index), blocks.last_row(index))) return false;
    for (int64_t p = range.first; p < range.last; p += kGathered)
      add_pairs(work, block, tap, p, static_cast<size_t>(std::min<int64_t>(kGathered, range.last - p)));
  }
  round_sums(work, block);
  return true;
}

// Sums of a block of rows fill a part of the second cache.
constexpr size_t kSumBytes = 256 << 10;
constexpr size_t kMostRows = 1024, kLeastRows = 128;

BadPair make_all_rows(const RowProduct& work, int threads) {
  const size_t row_bytes = work.sums_row() * sizeof(float);
  const size_t fitting = kSumBytes / std::max<size_t>(row_bytes, 1) / kTile * kTile;
  const size_t block_rows = std::clamp(fitting, kLeastRows, kMostRows);
  const size_t left_bytes = kGathered * work.group.steps * kStep * sizeof(bfloat16);
  ScratchPool scratch(block_rows * row_bytes + left_bytes);
  std::atomic<bool> bad{false};
  const RowBlocks blocks(work.pairs, work.out_rows, block_rows, threads);
  for_blocks(blocks.blocks(), threads, [&](size_t index) {
    if (bad.load(std::memory_order_relaxed)) return;
    scratch.with_piece([&](std::byte* piece) {
      RowBlock block{};
      block.first = static_cast<size_t>(blocks.first_row(index));
      block.rows = static_cast<size_t>(blocks.last_row(index)) - block.first;
      block.sums = reinterpret_cast<float*>(piece);
      block.left = reinterpret_cast<bfloat16*>(piece + block_rows * row_bytes);
      if (!make_rows(work, blocks, index, block)) bad.store(true, std::memory_order_relaxed);
    });
  });
  return bad ? first_bad_pair(work.pairs, work.in_rows, work.out_rows, true) : BadPair{};
}

// Packs W[k] of each tap and group with pack(tap, g, to).
template <class Pack>
Lines<bfloat16> packed_weight(size_t taps, size_t groups, const Group& group, int threads, const Pack& pack) {
  Lines<bfloat16> packed = new_lines<bfloat16>(taps * groups * group.packed());
  bfloat16* const to = packed.get();
  for_blocks(taps * groups, threads, [&pack, &group, groups, to](size_t block) {
    pack(block / groups, block % groups, to + block * group.packed());
  });
  return packed;
}

}  // namespace

BadPair convolve_bf16(const bfloat16* in, size_t in_rows, const bfloat16* weight, const bfloat16* bias,
                      const PairLists& pairs, bfloat16* out, size_t out_rows, const Channels& channels,
                      int threads) {
  const Group group(channels.in / channels.groups, channels.out / channels.groups);
  const auto pack = [&](size_t tap, size_t g, bfloat16* to) {
    const bfloat16* items = weight + (g * group.to * pairs.taps + tap) * group.from;
    pack_forward(items, pairs.taps * group.from, group, to);
  };
  const Lines<bfloat16> packed = packed_weight(pairs.taps, channels.groups, group, threads, pack);
  return make_all_rows(
      {in, in_rows, packed.get(), bias, pairs, out, out_rows, group, channels.groups, has_tiles()}, threads);
}

BadPair convolve_back_bf16(const bfloat16* grad, size_t out_rows, const bfloat16* weight,
                           const PairLists& back, bfloat16* in_grad, size_t in_rows, const Channels& channels,
                           int threads) {
  const Group group(channels.out / channels.groups, channels.in / channels.groups);
  const auto pack = [&](size_t tap, size_t g, bfloat16* to) {
    const bfloat16* items = weight + (g * group.from * back.taps + tap) * group.to;
    pack_back(items, back.taps * group.to, group, to);
  };
  const Lines<bfloat16> packed = packed_weight(back.taps, channels.groups, group, threads, pack);
  return make_all_rows(
      {grad, out_rows, packed.get(), nullptr, back, in_grad, in_rows, group, channels.groups, has_tiles()},
      threads);
}

}  // namespace hepfeed

#endif
