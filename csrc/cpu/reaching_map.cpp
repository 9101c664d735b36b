#include "cpu/reaching_map.h"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "cpu/clones.h"
#include "cpu/radix_sort.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

// One axis of a convolution, and where its coordinate lies in a number whose axes have whole bits.
struct AxisMove {
  int64_t taps, stride, padding, dilation, extent;
  bool transposed;
  int shift, bits;
};

// What the taps of one axis make of sorted places.
struct Moved {
  size_t taps, count;                 // of places before
  size_t size;                        // of places that some tap reaches
  std::unique_ptr<int64_t[]> places;  // (size) sorted
  std::unique_ptr<int32_t[]> rank;    // (taps, count + 1): which of them each place before becomes, or -1
};

// Sorted lists to be merged, one a tap, each with kNumbersEnd behind its last item.
struct Candidates {
  std::unique_ptr<int64_t[]> place;  // (taps, count + 1)
  std::unique_ptr<int32_t[]> from;   // (taps, count + 1): number of the place it comes from
  std::vector<size_t> size;
};

// Some places, as one axis takes them apart: the coordinate of an output is the quotient and what depends on
// the tap alone, wherever the remainder is that of the tap.
struct Parts {
  static constexpr size_t kMost = 512;  // all parts fit the first-level cache

  int64_t rest[kMost], quotient[kMost], remainder[kMost];

  Parts(const int64_t* places, size_t count, const AxisMove& axis) {
    const int64_t mask = (int64_t{1} << axis.bits) - 1, padding = axis.padding, stride = axis.stride;
    const int shift = axis.shift, bits = __builtin_ctzll(static_cast<uint64_t>(stride));
    const bool is_power = !axis.transposed && int64_t{1} << bits == stride;
    for_isa([=]() HEPFEED_INLINE {
      for (size_t j = 0; j < count; ++j) {
        const int64_t x = places[j] >> shift & mask, padded = x + padding;
        rest[j] = places[j] & ~(mask << shift);
        quotient[j] = is_power ? padded >> bits : x;
        remainder[j] = is_power ? padded & (stride - 1) : 0;
      }
    });
    if (is_power) return;
    for (size_t j = 0; j < count; ++j) {
      if (axis.transposed) {
        quotient[j] = quotient[j] * stride - padding;
      } else {
        const auto padded = static_cast<uint32_t>(quotient[j] + padding);
        quotient[j] = padded / static_cast<uint32_t>(stride);
        remainder[j] = padded % static_cast<uint32_t>(stride);
      }
    }
  }
};

// Places in [low, high) that the taps of one axis make of `places`.
Candidates move_all(const int64_t* places, size_t count, const AxisMove& axis, int64_t low, int64_t high) {
  const auto taps = static_cast<size_t>(axis.taps), row = count + 1;
  Candidates made{std::unique_ptr<int64_t[]>(new int64_t[taps * row]),
                  std::unique_ptr<int32_t[]>(new int32_t[taps * row]), std::vector<size_t>(taps, 0)};
  const int64_t mask = (int64_t{1} << axis.bits) - 1, last = axis.extent - 1, below = high - 1;
  const int shift = axis.shift;
  for (size_t first = 0; first < count; first += Parts::kMost) {
    const size_t items = std::min(count - first, Parts::kMost);
    const Parts parts(places + first, items, axis);
    const int64_t *rest = parts.rest, *quotient = parts.quotient, *remainder = parts.remainder;
    for (size_t tap = 0; tap < taps; ++tap) {
      const int64_t reach = static_cast<int64_t>(tap) * axis.dilation;
      const int64_t offset = axis.transposed ? reach : -(reach / axis.stride);
      const int64_t wanted = axis.transposed ? 0 : reach % axis.stride;
      int64_t buffer[Parts::kMost], *const moved = buffer;
      for_isa([=]() HEPFEED_INLINE {
        for (size_t j = 0; j < items; ++j) {
          const int64_t x = quotient[j] + offset, place = rest[j] | (x & mask) << shift;
          // The sign of what must not be below 0: no branch.
          const int64_t fault =
              x | (last - x) | (place - low) | (below - place) | -int64_t{remainder[j] != wanted};
          moved[j] = place | fault >> 63;
        }
      });
      int64_t* place = made.place.get() + tap * row;
      int32_t* from = made.from.get() + tap * row;
      size_t kept = made.size[tap];
      // Written first and counted then: whether an item counts can't be predicted.
      for (size_t j = 0; j < items; ++j) {
        place[kept] = moved[j];
        from[kept] = static_cast<int32_t>(first + j);
        kept += static_cast<uint64_t>(~moved[j]) >> 63;
      }
      made.size[tap] = kept;
    }
  }
  for (size_t tap = 0; tap < taps; ++tap) {
    made.place[tap * row + made.size[tap]] = kNumbersEnd;
    made.from[tap * row + made.size[tap]] = static_cast<int32_t>(count);
  }
  return made;
}

// Merges the lists of `Taps` taps.  Every list writes the rank that its next item would have in every step,
// and overwrites it until the step is its own.
template <size_t Taps>
void merge(const Candidates& lists, Moved& moved) {
  const size_t row = moved.count + 1;
  std::array<size_t, Taps> at;
  for (size_t tap = 0; tap < Taps; ++tap) at[tap] = tap * row;
  const int64_t* place = lists.place.get();
  const int32_t* from = lists.from.get();
  int64_t* out = moved.places.get();
  int32_t* rank = moved.rank.get();
  int32_t made = 0;
  for (;; ++made) {
    std::array<int64_t, Taps> head;
    for (size_t tap = 0; tap < Taps; ++tap) head[tap] = place[at[tap]];
    int64_t least = head[0];
    // The lesser of two, without a branch.
    for (size_t tap = 1; tap < Taps; ++tap) least ^= (least ^ head[tap]) & -int64_t{head[tap] < least};
    if (least == kNumbersEnd) break;
    out[made] = least;
    for (size_t tap = 0; tap < Taps; ++tap) {
      rank[tap * row + static_cast<size_t>(from[at[tap]])] = made;
      at[tap] += head[tap] == least;
    }
  }
  moved.size = static_cast<size_t>(made);
}

// The same by sorting, for many taps.
void merge_many(const Candidates& lists, Moved& moved) {
  const size_t row = moved.count + 1;
  int64_t *const first = moved.places.get(), *end = first;
  for (size_t tap = 0; tap < moved.taps; ++tap)
    end = std::copy_n(lists.place.get() + tap * row, lists.size[tap], end);
  std::sort(first, end);
  end = std::unique(first, end);
  for (size_t tap = 0; tap < moved.taps; ++tap) {
    const int64_t* at = first;
    for (size_t i = tap * row; i < tap * row + lists.size[tap]; ++i) {
      at = std::lower_bound(at, static_cast<const int64_t*>(end), lists.place[i]);
      moved.rank[tap * row + static_cast<size_t>(lists.from[i])] = static_cast<int32_t>(at - first);
    }
  }
  moved.size = static_cast<size_t>(end - first);
}

Moved move(const int64_t* places, size_t count, const AxisMove& axis, int64_t low, int64_t high) {
  const Candidates lists = move_all(places, count, axis, low, high);
  const size_t taps = lists.size.size(),
               room = std::accumulate(lists.size.begin(), lists.size.end(), size_t{0});
  if (room > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    throw std::length_error("the taps of one axis reach 2^31 places or more");
  Moved moved{taps, count, 0, std::unique_ptr<int64_t[]>(new int64_t[room]),
              std::unique_ptr<int32_t[]>(new int32_t[taps * (count + 1)])};
  std::fill_n(moved.rank.get(), taps * (count + 1), -1);
  switch (taps) {
    case 1:
      merge<1>(lists, moved);
      break;
    case 2:
      merge<2>(lists, moved);
      break;
    case 3:
      merge<3>(lists, moved);
      break;
    case 4:
      merge<4>(lists, moved);
      break;
    case 5:
      merge<5>(lists, moved);
      break;
    default:
      merge_many(lists, moved);
  }
  return moved;
}

// Follows inputs through the axes, tap after tap in C order.
class Descent {
 public:
  // Inputs are rows of the places that the first axis began with.
  Descent(const std::vector<Moved>& axes, PairBlock& pairs)
      : axes_(axes), pairs_(pairs), count_(axes[0].count), buffer_(new int32_t[2 * axes.size() * count_]) {}

  // Appends the pairs of inputs `in`.
  void run(const int32_t* in) {
    std::vector<int32_t> self(count_);
    std::iota(self.begin(), self.end(), 0);
    pairs_.starts.assign(1, 0);
    run(0, in, self.data(), count_);
  }

 private:
  // `rank` are places of inputs `in` before this axis.
  void run(size_t axis, const int32_t* in, const int32_t* rank, size_t count) {
    const Moved& moved = axes_[axis];
    const bool is_last = axis + 1 == axes_.size();
    for (size_t tap = 0; tap < moved.taps; ++tap) {
      const size_t before = pairs_.in.size();
      int32_t *in_kept = &buffer_[2 * axis * count_], *rank_kept = in_kept + count_;
      if (is_last) {
        pairs_.in.resize(before + count);
        pairs_.out.resize(before + count);
        in_kept = pairs_.in.data() + before;
        rank_kept = pairs_.out.data() + before;
      }
      const int32_t* next = moved.rank.get() + tap * (moved.count + 1);
      size_t kept = 0;
      for (size_t i = 0; i < count; ++i) {
        const int32_t here = next[rank[i]];
        in_kept[kept] = in[i];
        rank_kept[kept] = here;
        kept += here >= 0;
      }
      if (is_last) {
        pairs_.in.resize(before + kept);
        pairs_.out.resize(before + kept);
        pairs_.starts.push_back(before + kept);
      } else {
        run(axis + 1, in_kept, rank_kept, kept);
      }
    }
  }

  const std::vector<Moved>& axes_;
  PairBlock& pairs_;
  const size_t count_;
  std::unique_ptr<int32_t[]> buffer_;  // (axes, 2, count): inputs and places that are left behind each axis
};

}  // namespace

ReachingMap::ReachingMap(const Convolution& c, const SiteRows& sites, const int32_t* order, size_t events,
                         int threads)
    : taps_(c.taps()), dims_(c.dims()), outputs_(0), rows_(sites.count), bits_(c.dims()) {
  std::vector<int64_t> widths(dims_);
  for (size_t d = 0; d < dims_; ++d) {
    bits_[d] = bits_of(static_cast<uint64_t>(std::max(c.shape[d], c.out_shape[d])));
    widths[d] = int64_t{1} << bits_[d];
  }
  const Numbering numbering(events, c.shape, widths);
  const std::unique_ptr<int64_t[]> number = rising_numbers(sites, order, numbering, threads);
  std::vector<AxisMove> axes(dims_);
  for (size_t d = dims_, shift = 0; d-- > 0; shift += static_cast<size_t>(bits_[d]))
    axes[d] = {c.kernel[d],
               c.stride[d],
               c.padding[d],
               c.dilation[d],
               c.out_shape[d],
               c.transposed,
               static_cast<int>(shift),
               bits_[d]};

  // Slabs of outputs, cut where as many inputs lie before as the blocks have.
  const AxisMove& lead = axes[0];
  const int64_t mask = (int64_t{1} << lead.bits) - 1, spread = (lead.taps - 1) * lead.dilation;
  // Where the first tap or the last one takes an input on the first axis, rounded down and held within the
  // grid: this rises with the input.
  const auto reached = [&](int64_t at, bool last_tap) {
    const int64_t x = at >> lead.shift & mask, event = at >> lead.shift >> lead.bits;
    int64_t to;
    if (lead.transposed)
      to = x * lead.stride - lead.padding + (last_tap ? spread : 0);
    else
      to = std::max<int64_t>(0, x + lead.padding - (last_tap ? spread : 0)) / lead.stride;
    return ((event << lead.bits) + std::clamp<int64_t>(to, 0, lead.extent)) << lead.shift;
  };
  const size_t count = (sites.count + kMapBlock - 1) / kMapBlock;
  std::vector<int64_t> cuts(1, 0);
  for (size_t b = 1; b < count; ++b) cuts.push_back(reached(number[b * kMapBlock], false));
  cuts.push_back(kNumbersEnd);

  slabs_.resize(count);
  for_blocks(count, threads, [&](size_t b) {
    const int64_t low = cuts[b], high = cuts[b + 1];
    const int64_t *start = number.get(), *end = start + sites.count;
    // Taps rise away from the input where it is transposed, and towards it where it is not.
    const int64_t* from =
        std::partition_point(start, end, [&](int64_t at) { return reached(at, lead.transposed) < low; });
    const int64_t* to =
        std::partition_point(from, end, [&](int64_t at) { return reached(at, !lead.transposed) < high; });
    const auto inputs = static_cast<size_t>(to - from);
    std::vector<Moved> moved;
    moved.push_back(move(from, inputs, axes[0], low, high));
    for (size_t d = 1; d < dims_; ++d)
      moved.push_back(move(moved.back().places.get(), moved.back().size, axes[d], 0, kNumbersEnd));
    std::vector<int32_t> in(inputs);
    for (size_t i = 0; i < inputs; ++i) {
      const auto place = static_cast<size_t>(from - start) + i;
      in[i] = order ? order[place] : static_cast<int32_t>(place);
    }
    Descent(moved, slabs_[b].pairs).run(in.data());
    slabs_[b].places.assign(moved.back().places.get(), moved.back().places.get() + moved.back().size);
  });

  std::vector<int64_t> sizes(taps_);
  for (Slab& slab : slabs_) {
    slab.first = outputs_;
    outputs_ += slab.places.size();
    for (size_t tap = 0; tap < taps_; ++tap)
      sizes[tap] += static_cast<int64_t>(slab.pairs.starts[tap + 1] - slab.pairs.starts[tap]);
  }
  if (outputs_ > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    throw std::length_error("there are 2^31 output sites or more");
  offsets_ = offsets_of(sizes);
  std::vector<PairBlock*> blocks;
  for (Slab& slab : slabs_) blocks.push_back(&slab.pairs);
  place_blocks(blocks, offsets_, taps_);
}

void ReachingMap::write(const PairArrays& arrays, int threads) const {
  for_blocks(slabs_.size(), threads, [&](size_t b) {
    const PairBlock& pairs = slabs_[b].pairs;
    const auto base = static_cast<int32_t>(slabs_[b].first);
    for (size_t tap = 0; tap < taps_; ++tap) {
      const size_t first = pairs.starts[tap], count = pairs.starts[tap + 1] - first;
      std::copy_n(pairs.in.data() + first, count, arrays.in + pairs.place[tap]);
      for (size_t i = 0; i < count; ++i) arrays.out[pairs.place[tap] + i] = base + pairs.out[first + i];
    }
  });
  if (!arrays.back_in) return;
  for_blocks(taps_, threads, [&](size_t tap) {
    const auto first = static_cast<size_t>(offsets_[tap]);
    const auto count = static_cast<size_t>(offsets_[tap + 1]) - first;
    sort_pairs(arrays.in + first, arrays.out + first, count, rows_, arrays.back_out + first,
               arrays.back_in + first);
  });
}

void ReachingMap::write_outputs(int32_t* indices, int threads) const {
  for_blocks(slabs_.size(), threads, [&](size_t b) {
    int32_t* site = indices + slabs_[b].first * (dims_ + 1);
    for (int64_t place : slabs_[b].places) {
      for (size_t d = dims_; d-- > 0; place >>= bits_[d])
        site[1 + d] = static_cast<int32_t>(place & ((int64_t{1} << bits_[d]) - 1));
      site[0] = static_cast<int32_t>(place);
      site += dims_ + 1;
    }
  });
}

}  // namespace hepfeed
