#include "cpu/submanifold_map.h"

#include <algorithm>
#include <memory>

#include "cpu/isa.h"
#include "cpu/threads.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

constexpr size_t kLines = 16;  // searched together

// Inputs first .. last - 1 of an output, in numbers of places.
struct Run {
  int32_t out, first, last;
};

// Taps that differ on the last axis alone: for one output the numbers of their inputs lie between two bounds,
// which rise with the output.
struct Line {
  int64_t low, high;    // the bounds less the number of the output
  const int64_t* from;  // the first number not below the bounds of the output before
  Run* to;              // behind the last run that was found
};

// Appends the runs of outputs first .. last - 1 that are not empty to those of their lines.
void find_runs(const int64_t* number, size_t first, size_t last, Line* lines, size_t count) {
  for (Line* line = lines; line < lines + count; ++line) {
    for (size_t out = first; out < last; ++out) {
      const int64_t low = number[out] + line->low, high = number[out] + line->high;
      const int64_t* from = line->from;
      while (*from < low) ++from;
      line->from = from;
      if (*from > high) continue;
      const int64_t* to = from + 1;
      while (*to <= high) ++to;
      *line->to++ = {static_cast<int32_t>(out), static_cast<int32_t>(from - number),
                     static_cast<int32_t>(to - number)};
    }
  }
}

#if HEPFEED_X86
// The same without branches that can't be predicted: both ends of a run are counted in a window, and all
// lines are done for one output after another, as they do not wait for each other.
HEPFEED_TARGET_AVX2 void find_runs_avx2(const int64_t* number, size_t first, size_t last, Line* lines,
                                        size_t count) {
  const auto ones = [](__m256i mask) HEPFEED_TARGET_AVX2 {
    return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(mask))));
  };
  for (size_t out = first; out < last; ++out) {
    for (Line* line = lines; line < lines + count; ++line) {
      const int64_t low = number[out] + line->low, high = number[out] + line->high;
      const int64_t *from = line->from, *to = from + kNumbersWindow;
      const __m256i window = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      const __m256i below = _mm256_cmpgt_epi64(_mm256_set1_epi64x(low), window);
      const __m256i above = _mm256_cmpgt_epi64(window, _mm256_set1_epi64x(high));
      from += ones(below);
      to -= ones(above);
      if (to == line->from + kNumbersWindow) {
        while (*from < low) ++from;
        while (*to <= high) ++to;
      }
      line->from = from;
      *line->to = {static_cast<int32_t>(out), static_cast<int32_t>(from - number),
                   static_cast<int32_t>(to - number)};
      line->to += from < to;
    }
  }
}
#endif

// Finds the pairs of a submanifold convolution.
class PairSearch {
 public:
  PairSearch(const Convolution& c, const Numbering& numbering, const int64_t* number, size_t count)
      : number_(number),
        count_(count),
        taps_(static_cast<size_t>(c.kernel.back())),
        dilation_(c.dilation.back()) {
    const int64_t reach = c.padding.back();
    for (size_t line = 0; line < (c.taps() / taps_ + 1) / 2; ++line) {
      int64_t shift = 0;
      for (size_t d = c.dims() - 1, rest = line; d-- > 0; rest /= static_cast<size_t>(c.kernel[d])) {
        const auto tap = static_cast<int64_t>(rest % static_cast<size_t>(c.kernel[d]));
        shift += (tap * c.dilation[d] - c.padding[d]) * numbering.step(d);
      }
      lines_.push_back({shift - reach, shift + reach, nullptr, nullptr});
    }
    lines_.back().high = -1;  // of the line through the centre only what lies before it
  }

  // The pairs of outputs first .. last - 1 with the taps before the centre.
  void find(size_t first, size_t last, PairBlock& pairs) const {
    const size_t most = last - first;
    const std::unique_ptr<Run[]> runs(new Run[std::min(kLines, lines_.size()) * most]);
    const std::unique_ptr<int32_t[]> in(new int32_t[taps_ * most]), out(new int32_t[taps_ * most]);
    pairs.starts.assign(1, 0);
    for (size_t line = 0; line < lines_.size(); line += kLines) {
      std::vector<Line> lines(
          lines_.begin() + static_cast<std::ptrdiff_t>(line),
          lines_.begin() + static_cast<std::ptrdiff_t>(std::min(lines_.size(), line + kLines)));
      find_runs_of(lines, first, last, runs.get());
      for (size_t i = 0; i < lines.size(); ++i) {
        const bool is_last = line + i + 1 == lines_.size();
        append(lines[i], &runs[i * most], is_last ? taps_ / 2 : taps_, most, in.get(), out.get(), pairs);
      }
    }
  }

 private:
  void find_runs_of(std::vector<Line>& lines, size_t first, size_t last, Run* runs) const {
    for (size_t i = 0; i < lines.size(); ++i) {
      lines[i].from = std::lower_bound(number_, number_ + count_, number_[first] + lines[i].low);
      lines[i].to = runs + i * (last - first);
    }
#if HEPFEED_X86
    if (isa() >= Isa::avx2) return find_runs_avx2(number_, first, last, lines.data(), lines.size());
#endif
    find_runs(number_, first, last, lines.data(), lines.size());
  }

  // Appends the pairs of the first `taps` taps of a line; `in` and `out` have room for `most` of each tap.
  void append(const Line& line, const Run* runs, size_t taps, size_t most, int32_t* in, int32_t* out,
              PairBlock& pairs) const {
    std::vector<size_t> size(taps_);
    for (const Run* run = runs; run < line.to; ++run) {
      const int64_t least = number_[run->out] + line.low;
      for (int32_t row = run->first; row < run->last; ++row) {
        const int64_t gap = number_[row] - least;
        if (dilation_ != 1 && gap % dilation_) continue;
        const auto tap = static_cast<size_t>(dilation_ == 1 ? gap : gap / dilation_);
        in[tap * most + size[tap]] = row;
        out[tap * most + size[tap]++] = run->out;
      }
    }
    for (size_t tap = 0; tap < taps; ++tap) {
      pairs.in.insert(pairs.in.end(), in + tap * most, in + tap * most + size[tap]);
      pairs.out.insert(pairs.out.end(), out + tap * most, out + tap * most + size[tap]);
      pairs.starts.push_back(pairs.in.size());
    }
  }

  const int64_t* number_;
  size_t count_, taps_;  // of a line
  int64_t dilation_;
  std::vector<Line> lines_;
};

}  // namespace

SubmanifoldMap::SubmanifoldMap(const Convolution& c, const SiteRows& sites, const int32_t* order,
                               size_t events, int threads)
    : order_(order),
      count_(sites.count),
      taps_(c.taps()),
      blocks_((sites.count + kMapBlock - 1) / kMapBlock) {
  // Widened by the reach of the kernel: a site moved by a tap has the number of no other site.
  std::vector<int64_t> widths(c.dims());
  for (size_t d = 0; d < c.dims(); ++d) widths[d] = c.shape[d] + c.padding[d];
  const Numbering numbering(events, c.shape, widths);
  const std::unique_ptr<int64_t[]> number = rising_numbers(sites, order, numbering, threads);
  const PairSearch search(c, numbering, number.get(), count_);
  const size_t centre = taps_ / 2;
  for_blocks(blocks_.size(), threads, [&](size_t b) {
    search.find(b * kMapBlock, std::min(count_, (b + 1) * kMapBlock), blocks_[b]);
  });
  std::vector<int64_t> sizes(taps_);
  sizes[centre] = static_cast<int64_t>(count_);
  for (size_t tap = 0; tap < centre; ++tap) {
    for (const PairBlock& block : blocks_)
      sizes[tap] += static_cast<int64_t>(block.starts[tap + 1] - block.starts[tap]);
    sizes[taps_ - 1 - tap] = sizes[tap];
  }
  offsets_ = offsets_of(sizes);
  std::vector<PairBlock*> blocks;
  for (PairBlock& block : blocks_) blocks.push_back(&block);
  place_blocks(blocks, offsets_, centre);
}

void SubmanifoldMap::write(const PairArrays& arrays, int threads) const {
  order_ ? write_by_rows(arrays, threads) : write_in_order(arrays, threads);
}

void SubmanifoldMap::write_in_order(const PairArrays& arrays, int threads) const {
  const size_t centre = taps_ / 2;
  for_blocks(blocks_.size(), threads, [&](size_t b) {
    const PairBlock& block = blocks_[b];
    for (size_t tap = 0; tap < centre; ++tap) {
      const size_t first = block.starts[tap], count = block.starts[tap + 1] - first;
      const size_t mirrored =
          block.place[tap] + static_cast<size_t>(offsets_[taps_ - 1 - tap] - offsets_[tap]);
      std::copy_n(block.in.data() + first, count, arrays.in + block.place[tap]);
      std::copy_n(block.out.data() + first, count, arrays.out + block.place[tap]);
      std::copy_n(block.out.data() + first, count, arrays.in + mirrored);
      std::copy_n(block.in.data() + first, count, arrays.out + mirrored);
    }
    const auto of_centre = static_cast<size_t>(offsets_[centre]);
    for (size_t n = b * kMapBlock; n < std::min(count_, (b + 1) * kMapBlock); ++n)
      arrays.in[of_centre + n] = arrays.out[of_centre + n] = static_cast<int32_t>(n);
  });
}

void SubmanifoldMap::write_by_rows(const PairArrays& arrays, int threads) const {
  const size_t centre = taps_ / 2;
  for_blocks(centre + 1, threads, [&](size_t tap) {
    const auto here = static_cast<size_t>(offsets_[tap]),
               there = static_cast<size_t>(offsets_[taps_ - 1 - tap]);
    const auto count = static_cast<size_t>(offsets_[tap + 1]) - here;
    if (tap == centre) {
      for (size_t n = 0; n < count; ++n)
        for (int32_t* rows : {arrays.in, arrays.out, arrays.back_in, arrays.back_out})
          rows[here + n] = static_cast<int32_t>(n);
      return;
    }
    const std::unique_ptr<int32_t[]> in(new int32_t[count]), out(new int32_t[count]);
    for (const PairBlock& block : blocks_) {
      const size_t first = block.starts[tap], to = block.place[tap] - here;
      for (size_t i = 0; i < block.starts[tap + 1] - first; ++i) {
        in[to + i] = order_[block.in[first + i]];
        out[to + i] = order_[block.out[first + i]];
      }
    }
    sort_pairs(out.get(), in.get(), count, count_, arrays.out + here, arrays.in + here);
    sort_pairs(in.get(), out.get(), count, count_, arrays.out + there, arrays.in + there);
    std::copy_n(arrays.in + here, count, arrays.back_in + there);
    std::copy_n(arrays.out + here, count, arrays.back_out + there);
    std::copy_n(arrays.in + there, count, arrays.back_in + here);
    std::copy_n(arrays.out + there, count, arrays.back_out + here);
  });
}

}  // namespace hepfeed
