// Pairs of a tap are cut into parts.  A part packs the rows of 256 pairs at a time, those of the gradient
// transposed, and multiplies them, as a sum over pairs, to float32 sums of its own; these are added in order.
#include "cpu/weight_gradient_bf16.h"

#if HEPFEED_X86

#include <algorithm>
#include <atomic>
#include <vector>

#include "cpu/bf16_pack.h"
#include "cpu/bf16_product.h"
#include "cpu/pair_lists.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

constexpr size_t kChunk = 256;  // pairs whose rows, packed, stay in the cache
constexpr size_t kSteps = kChunk / kStep;

// At least so many pairs a part, and at most so many parts more than taps: their sums take memory.
constexpr size_t kPartPairs = 4096, kMoreParts = 128;

struct Part {
  size_t tap;
  int64_t begin, end;
};

std::vector<Part> parts_of(const PairLists& pairs) {
  const auto total = static_cast<size_t>(pairs.offsets[pairs.taps]);
  const auto length = static_cast<int64_t>(std::max(kPartPairs, total / kMoreParts + 1));
  std::vector<Part> parts;
  for (size_t tap = 0; tap < pairs.taps; ++tap)
    for (int64_t begin = pairs.offsets[tap]; begin < pairs.offsets[tap + 1]; begin += length)
      parts.push_back({tap, begin, std::min(begin + length, pairs.offsets[tap + 1])});
  return parts;
}

// Rows are asked for ahead where there are more than stay in the second cache.
constexpr size_t kFarBytes = 2 << 20;

// All that the parts share.
struct PairProduct {
  const bfloat16 *in, *grad;
  size_t in_rows, grad_rows;
  const PairLists& pairs;
  size_t groups, from, to;  // channels of one group: of the input, and of the gradient
  bool tiles;

  size_t from_tiles() const { return (from + kTile - 1) / kTile; }
  bool is_far() const { return (in_rows * from + grad_rows * to) * groups * sizeof(bfloat16) > kFarBytes; }
  size_t to_tiles() const { return (to + kTile - 1) / kTile; }
  size_t left_items() const { return to_tiles() * kSteps * kPackedTile; }
  size_t right_items() const { return from_tiles() * kSteps * kPackedTile; }
  size_t group_sums() const { return to_tiles() * kTile * from_tiles() * kTile; }
  size_t part_sums() const { return groups * group_sums(); }
};

// Sixteen channels of the rows 2 t and 2 t + 1 of `count`, side by side; zeros where there is none.
HEPFEED_TARGET_AVX512_BF16 inline __m512i pair_of_rows(const bfloat16* values, size_t row_items,
                                                       const int32_t* rows, size_t count, size_t t,
                                                       __mmask16 mask) {
  const bool even = 2 * t < count, odd = 2 * t + 1 < count;
  return pair_rows(even ? values + static_cast<size_t>(rows[2 * t]) * row_items : values,
                   odd ? values + static_cast<size_t>(rows[2 * t + 1]) * row_items : values, even ? mask : 0,
                   odd ? mask : 0);
}

// Packs `channels` of the rows as `Product::right`: (tiles, steps, 16, 16, 2), the terms being the rows.
HEPFEED_TARGET_AVX512_BF16 void pack_right(const bfloat16* values, size_t row_items, size_t channels,
                                           const int32_t* rows, size_t count, size_t steps, bfloat16* to) {
  for (size_t t = 0; t < steps * kStep / 2; ++t)
    for (size_t tile = 0; tile * kTile < channels; ++tile) {
      const auto mask = static_cast<__mmask16>(low_bits(items_of_block(channels, tile * kTile, kTile)));
      _mm512_store_si512(to + tile * steps * kPackedTile + t * kStep,
                         pair_of_rows(values + tile * kTile, row_items, rows, count, t, mask));
    }
}

// Packs them as `Product::left`, transposed: (steps, 16 tiles, 32).
HEPFEED_TARGET_AVX512_BF16 void pack_left(const bfloat16* values, size_t row_items, size_t channels,
                                          const int32_t* rows, size_t count, size_t steps, bfloat16* to) {
  for (size_t step = 0; step < steps; ++step)
    for (size_t tile = 0; tile * kTile < channels; ++tile) {
      const auto mask = static_cast<__mmask16>(low_bits(items_of_block(channels, tile * kTile, kTile)));
      __m512i items[kTile];
      for (size_t t = 0; t < kTile; ++t)
        items[t] = pair_of_rows(values + tile * kTile, row_items, rows, count, step * kTile + t, mask);
      transpose(items);
      for (size_t c = 0; c < kTile; ++c, to += kStep) _mm512_store_si512(to, items[c]);
    }
}

// Asks for `count` rows, which then are on their way while others are multiplied.
void fetch_rows(const bfloat16* values, size_t row_items, const int32_t* rows, size_t count) {
  for (size_t r = 0; r < count; ++r) {
    const bfloat16* row = values + static_cast<size_t>(rows[r]) * row_items;
    for (size_t c = 0; c < row_items; c += kLineBytes / sizeof(bfloat16)) __builtin_prefetch(row + c, 0, 2);
  }
}

// The sums of one part; false where a pair is bad.
bool make_part(const PairProduct& work, const Part& part, bfloat16* left, bfloat16* right, float* sums) {
  if (!in_bounds(work.pairs, {part.begin, part.end}, work.in_rows, work.grad_rows)) return false;
  const TileState state(work.tiles);
  std::fill(sums, sums + work.part_sums(), 0.0f);
  const size_t in_items = work.groups * work.from, grad_items = work.groups * work.to;
  const auto count_from = [&](int64_t begin) {
    return static_cast<size_t>(std::clamp<int64_t>(part.end - begin, 0, kChunk));
  };
  for (int64_t begin = part.begin; begin < part.end; begin += kChunk) {
    const size_t count = count_from(begin), steps = (count + kStep - 1) / kStep;
    const int32_t *in = work.pairs.in + begin, *out = work.pairs.out + begin;
    if (work.is_far()) {
      fetch_rows(work.in, in_items, in + count, count_from(begin + kChunk));
      fetch_rows(work.grad, grad_items, out + count, count_from(begin + kChunk));
    }
    for (size_t g = 0; g < work.groups; ++g) {
      pack_left(work.grad + g * work.to, grad_items, work.to, out, count, steps, left);
      pack_right(work.in + g * work.from, in_items, work.from, in, count, steps, right);
      Product product{};
      product.left = left;
      product.left_row = kStep;
      product.left_step = work.to_tiles() * kPackedTile;
      product.rows = work.to_tiles() * kTile;
      product.right = right;
      product.steps = steps;
      product.tiles = work.from_tiles();
      product.sums = sums + g * work.group_sums();
      product.sums_row = work.from_tiles() * kTile;
      work.tiles ? add_product_amx(product) : add_product_avx512(product);
    }
  }
  return true;
}

// Adds the sums of the parts of one tap and rounds them into its place in the gradient (C_out, taps, from).
HEPFEED_TARGET_AVX512_BF16 void join_parts(const PairProduct& work, size_t tap, const float* sums,
                                           size_t parts, bfloat16* weight_grad) {
  for (size_t g = 0; g < work.groups; ++g)
    for (size_t o = 0; o < work.to; ++o) {
      const float* row = sums + g * work.group_sums() + o * work.from_tiles() * kTile;
      bfloat16* made = weight_grad + ((g * work.to + o) * work.pairs.taps + tap) * work.from;
      for (size_t c = 0; c < work.from; c += kTile) {
        __m512 sum = _mm512_setzero_ps();
        for (size_t part = 0; part < parts; ++part)
          sum = _mm512_add_ps(sum, _mm512_load_ps(row + part * work.part_sums() + c));
        const auto mask = static_cast<__mmask16>(low_bits(items_of_block(work.from, c, kTile)));
        _mm256_mask_storeu_epi16(made + c, mask, (__m256i)_mm512_cvtneps_pbh(sum));
      }
    }
}

}  // namespace

BadPair weight_gradient_bf16(const bfloat16* in, size_t in_rows, const bfloat16* grad, size_t out_rows,
                             const PairLists& pairs, bfloat16* weight_grad, const Channels& channels,
                             int threads) {
  const PairProduct work{in,
                         grad,
                         in_rows,
                         out_rows,
                         pairs,
                         channels.groups,
                         channels.in / channels.groups,
                         channels.out / channels.groups,
                         has_tiles()};
  const std::vector<Part> parts = parts_of(pairs);
  const Lines<float> sums = new_lines<float>(parts.size() * work.part_sums());
  ScratchPool scratch((work.left_items() + work.right_items()) * sizeof(bfloat16));
  std::atomic<bool> bad{false};
  for_blocks(parts.size(), threads, [&](size_t part) {
    if (bad.load(std::memory_order_relaxed)) return;
    scratch.with_piece([&](std::byte* piece) {
      auto* left = reinterpret_cast<bfloat16*>(piece);
      if (!make_part(work, parts[part], left, left + work.left_items(), sums.get() + part * work.part_sums()))
        bad.store(true, std::memory_order_relaxed);
    });
  });
  if (bad) return first_bad_pair(pairs, in_rows, out_rows, false);
  for_blocks(pairs.taps, threads, [&](size_t tap) {
    const auto is_before = [](const Part& part, size_t number) { return part.tap < number; };
    const auto first = std::lower_bound(parts.begin(), parts.end(), tap, is_before);
    const auto last = std::lower_bound(first, parts.end(), tap + 1, is_before);
    join_parts(work, tap, sums.get() + static_cast<size_t>(first - parts.begin()) * work.part_sums(),
               static_cast<size_t>(last - first), weight_grad);
  });
  return {};
}

}  // namespace hepfeed

#endif
