#include "cpu/sort_sites.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <type_traits>

#include "cpu/radix_sort.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

constexpr size_t kBlock = 1 << 14;  // rows

size_t blocks_of(size_t count) { return (count + kBlock - 1) / kBlock; }

// Calls body(dims) with a compile-time number where it is a common one, so that the loop over axes is
// unrolled.
template <class Body>
void for_dims(size_t dims, const Body& body) {
  switch (dims) {
    case 1:
      return body(std::integral_constant<size_t, 1>());
    case 2:
      return body(std::integral_constant<size_t, 2>());
    case 3:
      return body(std::integral_constant<size_t, 3>());
    case 4:
      return body(std::integral_constant<size_t, 4>());
    default:
      return body(dims);
  }
}

// The number of a site, or -1 outside of the grids.
template <class Dims>
int64_t number_of(const int32_t* site, Dims dims, const Numbering& numbering, const int64_t* shape,
                  const int64_t* step) {
  bool inside = static_cast<uint64_t>(site[0]) < numbering.events();
  int64_t number = site[0] * (inside ? numbering.event_step() : 0);
  for (size_t d = 0; d < dims; ++d) {
    const int64_t x = site[1 + d];
    inside &= static_cast<uint64_t>(x) < static_cast<uint64_t>(shape[d]);
    number += inside ? x * step[d] : 0;
  }
  return inside ? number : -1;
}

template <class Item>
size_t sort_items(const int64_t* number, size_t count, int bits, int32_t* order, int threads) {
  const std::unique_ptr<Item[]> items(new Item[count]), scratch(new Item[count]);
  for_blocks(blocks_of(count), threads, [&](size_t block) {
    const size_t last = std::min(count, (block + 1) * kBlock);
    for (size_t n = block * kBlock; n < last; ++n)
      set_item(items[n], static_cast<uint64_t>(number[n]), static_cast<uint32_t>(n));
  });
  const Item* sorted = radix_sort(items.get(), scratch.get(), count, bits, threads);
  std::vector<size_t> repeated(blocks_of(count), count);
  for_blocks(blocks_of(count), threads, [&](size_t block) {
    const size_t first = block * kBlock, last = std::min(count, first + kBlock);
    for (size_t n = first; n < last; ++n) order[n] = static_cast<int32_t>(row_of(sorted[n]));
    const auto is_repeated = [&](size_t n) { return n && key_of(sorted[n]) == key_of(sorted[n - 1]); };
    size_t n = first;
    while (n < last && !is_repeated(n)) ++n;
    if (n < last) repeated[block] = n;
  });
  return count ? *std::min_element(repeated.begin(), repeated.end()) : 0;
}

// The first place in [0, count) whose number is not below `wanted`, or `count`; searched from `from` on in
// growing steps, as queries near each other find sites near each other.
size_t lower_bound_from(const int64_t* number, size_t count, size_t from, int64_t wanted) {
  size_t low, high;
  if (from < count && number[from] < wanted) {
    size_t step = 1;
    low = from + 1;
    while (low + step < count && number[low + step - 1] < wanted) low += step, step *= 2;
    high = std::min(count, low + step);
  } else {
    size_t step = 1;
    high = from;
    while (high > step && number[high - step] >= wanted) high -= step, step *= 2;
    low = high > step ? high - step : 0;
  }
  return static_cast<size_t>(std::lower_bound(number + low, number + high, wanted) - number);
}

}  // namespace

Numbering::Numbering(size_t events, std::vector<int64_t> shape, const std::vector<int64_t>& widths)
    : events_(events), shape_(std::move(shape)), step_(shape_.size()), event_step_(1) {
  for (size_t d = shape_.size(); d-- > 0;) {
    step_[d] = event_step_;
    if (__builtin_mul_overflow(event_step_, widths[d], &event_step_)) event_step_ = -1;
    if (event_step_ < 0) break;
  }
  int64_t places;
  const bool fits = event_step_ > 0 &&
                    !__builtin_mul_overflow(event_step_, static_cast<int64_t>(events_), &places) &&
                    places <= int64_t{1} << 62 && event_step_ <= int64_t{1} << 62;
  if (!fits) throw std::length_error("the places of a batch of grids need more than 62 bits");
}

SiteFaults number_sites(const SiteRows& sites, const int32_t* order, const Numbering& numbering,
                        int64_t* number, int threads) {
  const size_t count = sites.count;
  std::vector<SiteFaults> faults(blocks_of(count), {count, count});
  for_dims(sites.dims, [&](auto dims) {
    const std::vector<int64_t>& shape = numbering.shape();
    std::vector<int64_t> step(dims);
    for (size_t d = 0; d < dims; ++d) step[d] = numbering.step(d);
    for_blocks(faults.size(), threads, [&](size_t block) {
      const size_t first = block * kBlock, last = std::min(count, first + kBlock);
      const auto number_at = [&](size_t n) -> int64_t {
        const size_t row = order ? static_cast<size_t>(static_cast<uint32_t>(order[n])) : n;
        if (row >= count) return -1;
        return number_of(sites.indices + row * (dims + 1), dims, numbering, shape.data(), step.data());
      };
      int64_t before = first ? number_at(first - 1) : -1;
      bool outside = false, rising = true;
      for (size_t n = first; n < last; ++n) {
        const int64_t here = number[n] = number_at(n);
        outside |= here < 0;
        rising &= here > before;
        before = here;
      }
      if (!outside && rising) return;
      const auto is_outside = [](int64_t it) { return it < 0; };
      const auto found =
          static_cast<size_t>(std::find_if(number + first, number + last, is_outside) - number);
      if (found < last) faults[block].outside = found;
      before = first ? number_at(first - 1) : -1;
      for (size_t n = first; n < last; before = number[n++]) {
        if (number[n] > before) continue;
        faults[block].unsorted = n;
        break;
      }
    });
  });
  SiteFaults all{count, count};
  for (const SiteFaults& each : faults) {
    all.outside = std::min(all.outside, each.outside);
    all.unsorted = std::min(all.unsorted, each.unsorted);
  }
  return all;
}

size_t sort_sites(const int64_t* number, size_t count, const Numbering& numbering, int32_t* order,
                  int threads) {
  const int bits = bits_of(numbering.places());
  return bits <= 32 ? sort_items<PackedRow>(number, count, bits, order, threads)
                    : sort_items<KeyedRow>(number, count, bits, order, threads);
}

size_t unique_sites(const int64_t* number, const int32_t* order, size_t count, int32_t* first,
                    int32_t* row_of) {
  size_t distinct = 0;
  for (size_t n = 0; n < count; ++n) {
    if (!n || number[order[n]] != number[order[n - 1]]) first[distinct++] = order[n];
    row_of[order[n]] = static_cast<int32_t>(distinct - 1);
  }
  return distinct;
}

void find_sites(const int64_t* number, const int32_t* order, size_t count, const SiteRows& queries,
                const Numbering& numbering, int32_t* found, int threads) {
  for_dims(queries.dims, [&](auto dims) {
    std::vector<int64_t> step(dims);
    for (size_t d = 0; d < dims; ++d) step[d] = numbering.step(d);
    for_blocks(blocks_of(queries.count), threads, [&](size_t block) {
      const size_t last = std::min(queries.count, (block + 1) * kBlock);
      size_t at = 0;
      for (size_t q = block * kBlock; q < last; ++q) {
        const int64_t wanted = number_of(queries.indices + q * (dims + 1), dims, numbering,
                                         numbering.shape().data(), step.data());
        found[q] = -1;
        if (wanted < 0) continue;
        at = lower_bound_from(number, count, at, wanted);
        if (at < count && number[at] == wanted) found[q] = order ? order[at] : static_cast<int32_t>(at);
      }
    });
  });
}

}  // namespace hepfeed
