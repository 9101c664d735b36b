// The convolution in bfloat16: by products of such numbers where the processor has them, else in float32, to
// which arrays are widened for the call.
#include <algorithm>

#include "cpu/convolution.h"
#include "cpu/convolve_bf16.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"
#include "cpu/weight_gradient_bf16.h"

namespace hepfeed {
namespace {

#if HEPFEED_X86
// Products come in sums of 32 terms, or in matrices of 16 x 16; with fewer channels than these a group leaves
// most of them empty, and float32 is faster.
constexpr size_t kFewestChannels = 4;

// Whether to go by products, for a group that has `channels` where few are slow.
bool has_products(size_t channels) { return isa() >= Isa::avx512_bf16 && channels >= kFewestChannels; }
#endif

constexpr size_t kConvertItems = 1 << 16;

// Calls convert(begin, end) for blocks of `count` items.
template <class Convert>
void convert_items(size_t count, int threads, const Convert& convert) {
  for_blocks((count + kConvertItems - 1) / kConvertItems, threads, [=](size_t block) {
    convert(block * kConvertItems, std::min(count, (block + 1) * kConvertItems));
  });
}

Lines<float> widened(const bfloat16* values, size_t count, int threads) {
  Lines<float> wide = new_lines<float>(count);
  float* const to = wide.get();
  convert_items(count, threads, [=](size_t begin, size_t end) {
    for_isa([=]() HEPFEED_INLINE {
      for (size_t i = begin; i < end; ++i) to[i] = widen(values[i]);
    });
  });
  return wide;
}

void narrow_all(const float* values, size_t count, bfloat16* to, int threads) {
  convert_items(count, threads, [=](size_t begin, size_t end) {
    for_isa([=]() HEPFEED_INLINE {
      for (size_t i = begin; i < end; ++i) to[i] = narrow<bfloat16>(values[i]);
    });
  });
}

size_t weight_items(const PairLists& pairs, const Channels& channels) {
  return channels.out * pairs.taps * (channels.in / channels.groups);
}

}  // namespace

template <>
BadPair convolve(const bfloat16* in, size_t in_rows, const bfloat16* weight, const bfloat16* bias,
                 const PairLists& pairs, bfloat16* out, size_t out_rows, const Channels& channels,
                 int threads) {
#if HEPFEED_X86
  if (has_products(channels.in / channels.groups))
    return convolve_bf16(in, in_rows, weight, bias, pairs, out, out_rows, channels, threads);
#endif
  const Lines<float> x = widened(in, in_rows * channels.in, threads);
  const Lines<float> w = widened(weight, weight_items(pairs, channels), threads);
  const Lines<float> b = bias ? widened(bias, channels.out, threads) : nullptr;
  const Lines<float> made = new_lines<float>(out_rows * channels.out);
  const BadPair bad =
      convolve<float>(x.get(), in_rows, w.get(), b.get(), pairs, made.get(), out_rows, channels, threads);
  if (!bad.found) narrow_all(made.get(), out_rows * channels.out, out, threads);
  return bad;
}

template <>
BadPair convolve_back(const bfloat16* grad, size_t out_rows, const bfloat16* weight, const PairLists& back,
                      bfloat16* in_grad, size_t in_rows, const Channels& channels, int threads) {
#if HEPFEED_X86
  if (has_products(channels.out / channels.groups))
    return convolve_back_bf16(grad, out_rows, weight, back, in_grad, in_rows, channels, threads);
#endif
  const Lines<float> g = widened(grad, out_rows * channels.out, threads);
  const Lines<float> w = widened(weight, weight_items(back, channels), threads);
  const Lines<float> made = new_lines<float>(in_rows * channels.in);
  const BadPair bad =
      convolve_back<float>(g.get(), out_rows, w.get(), back, made.get(), in_rows, channels, threads);
  if (!bad.found) narrow_all(made.get(), in_rows * channels.in, in_grad, threads);
  return bad;
}

template <>
BadPair weight_gradient(const bfloat16* in, size_t in_rows, const bfloat16* grad, size_t out_rows,
                        const PairLists& pairs, bfloat16* weight_grad, const Channels& channels,
                        int threads) {
#if HEPFEED_X86
  if (has_products(std::min(channels.in, channels.out) / channels.groups))
    return weight_gradient_bf16(in, in_rows, grad, out_rows, pairs, weight_grad, channels, threads);
#endif
  const Lines<float> x = widened(in, in_rows * channels.in, threads);
  const Lines<float> g = widened(grad, out_rows * channels.out, threads);
  const size_t items = weight_items(pairs, channels);
  const Lines<float> made = new_lines<float>(items);
  const BadPair bad =
      weight_gradient<float>(x.get(), in_rows, g.get(), out_rows, pairs, made.get(), channels, threads);
  if (!bad.found) narrow_all(made.get(), items, weight_grad, threads);
  return bad;
}

}  // namespace hepfeed
