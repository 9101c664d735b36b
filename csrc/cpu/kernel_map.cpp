#include "cpu/kernel_map.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "cpu/clones.h"
#include "cpu/radix_sort.h"

namespace hepfeed {
namespace {

// Numbers places in C order of the output grid, by a bit for each cell.
class CellSet {
 public:
  explicit CellSet(size_t cells) : bits_((cells + 63) / 64), before_(bits_.size()) {}

  void add(int64_t cell) { bits_[static_cast<size_t>(cell) / 64] |= uint64_t{1} << (cell % 64); }

  // Appends the cells, in order; `ranks` holds from then on.
  void list(std::vector<int64_t>& cells) {
    uint32_t total = 0;
    for (size_t w = 0; w < bits_.size(); ++w) {
      before_[w] = total;
      for (uint64_t left = bits_[w]; left; left &= left - 1, ++total)
        cells.push_back(static_cast<int64_t>(64 * w) + __builtin_ctzll(left));
    }
  }

  // rank[i] = number of the cells of the set before cell[i].
  void ranks(const int64_t* cell, size_t count, uint32_t* rank) const {
    const uint64_t* bits = bits_.data();
    const uint32_t* before = before_.data();
    for_isa([=]() HEPFEED_INLINE {
      for (size_t i = 0; i < count; ++i) {
        const auto word = static_cast<size_t>(cell[i]) / 64;
        const uint64_t lower = bits[word] & ((uint64_t{1} << (cell[i] % 64)) - 1);
        rank[i] = before[word] + static_cast<uint32_t>(__builtin_popcountll(lower));
      }
    });
  }

  void clear() { std::fill(bits_.begin(), bits_.end(), 0); }

 private:
  std::vector<uint64_t> bits_;
  std::vector<uint32_t> before_;
};

// Inputs of one event with the output cells that they reach, tap after tap.
struct Candidates {
  std::vector<int64_t> cell;
  std::vector<int32_t> in;
  std::vector<size_t> starts;  // (taps + 1)
  std::vector<uint32_t> rank;  // of the cell among the outputs of the event
};

// Where the coordinates of inputs go for each axis and tap: reach[d][t * shape[d] + x] is the coordinate of
// the output times the cells of one step along its axis, or far below 0 where there is none.
using Reach = std::vector<std::vector<int64_t>>;

constexpr int64_t kNowhere = -(int64_t{1} << 60);  // outweighs any cell; eight of them do not overflow

Reach reach_of(const Convolution& c) {
  Reach reach(c.dims());
  int64_t step = 1;
  for (size_t d = c.dims(); d-- > 0; step *= c.out_shape[d]) {
    reach[d].assign(static_cast<size_t>(c.kernel[d] * c.shape[d]), kNowhere);
    for (int64_t tap = 0; tap < c.kernel[d]; ++tap) {
      for (int64_t x = 0; x < c.shape[d]; ++x) {
        const int64_t scaled = x + c.padding[d] - tap * c.dilation[d];
        if (scaled >= 0 && scaled % c.stride[d] == 0 && scaled / c.stride[d] < c.out_shape[d])
          reach[d][static_cast<size_t>(tap * c.shape[d] + x)] = scaled / c.stride[d] * step;
      }
    }
  }
  return reach;
}

void gather(const Convolution& c, const Reach& reach, const int32_t* indices, size_t first, size_t last,
            Candidates& found) {
  const size_t dims = c.dims(), stride = dims + 1;
  const int64_t last_taps = c.kernel[dims - 1], extent = c.shape[dims - 1];
  const size_t leading = c.taps() / static_cast<size_t>(last_taps);
  found.cell.clear();
  found.in.clear();
  found.starts.assign(1, 0);
  struct Survivor {
    int64_t cell;
    int32_t in, x;
  };
  std::vector<Survivor> survivors;
  std::vector<const int64_t*> table(dims);
  for (size_t lead = 0; lead < leading; ++lead) {
    for (size_t d = dims - 1, rest = lead; d-- > 0; rest /= static_cast<size_t>(c.kernel[d]))
      table[d] = reach[d].data() + static_cast<int64_t>(rest % static_cast<size_t>(c.kernel[d])) * c.shape[d];
    survivors.clear();
    for (size_t i = first; i < last; ++i) {
      const int32_t* x = indices + i * stride + 1;
      int64_t cell = 0;
      for (size_t d = 0; d + 1 < dims; ++d) cell += table[d][x[d]];
      if (cell >= 0) survivors.push_back({cell, static_cast<int32_t>(i), x[dims - 1]});
    }
    for (int64_t tap = 0; tap < last_taps; ++tap) {
      const int64_t* here = reach[dims - 1].data() + tap * extent;
      for (const Survivor& survivor : survivors) {
        const int64_t cell = survivor.cell + here[survivor.x];
        if (cell < 0) continue;
        found.cell.push_back(cell);
        found.in.push_back(survivor.in);
      }
      found.starts.push_back(found.cell.size());
    }
  }
}

// Ranks by sorting: for grids too large to have a bit for each cell.
void rank_sorted(Candidates& found, int bits, std::vector<int64_t>& cells) {
  std::vector<KeyedRow> items(found.cell.size()), scratch(found.cell.size());
  for (size_t i = 0; i < items.size(); ++i)
    set_item(items[i], static_cast<uint64_t>(found.cell[i]), static_cast<uint32_t>(i));
  const KeyedRow* sorted = radix_sort(items.data(), scratch.data(), items.size(), bits);
  uint32_t rank = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i && sorted[i].key != sorted[i - 1].key) ++rank;
    if (!i || sorted[i].key != sorted[i - 1].key) cells.push_back(static_cast<int64_t>(sorted[i].key));
    found.rank[sorted[i].row] = rank;
  }
}

}  // namespace

size_t Convolution::taps() const {
  size_t taps = 1;
  for (const int64_t size : kernel) taps *= static_cast<size_t>(size);
  return taps;
}

size_t first_unsorted(const int32_t* indices, size_t sites, const std::vector<int64_t>& shape,
                      size_t events) {
  const size_t columns = shape.size() + 1;
  for (size_t n = 0; n < sites; ++n) {
    const int32_t* site = indices + n * columns;
    bool inside = site[0] >= 0 && static_cast<size_t>(site[0]) < events;
    for (size_t d = 0; d < shape.size(); ++d) inside &= site[1 + d] >= 0 && site[1 + d] < shape[d];
    if (!inside) return n;
    if (n && !std::lexicographical_compare(site - columns, site, site, site + columns)) return n;
  }
  return sites;
}

void submanifold_pairs(const Convolution& c, const int32_t* indices, size_t sites, Pairs& pairs) {
  const size_t dims = c.dims(), taps = c.taps();
  // Keys of a grid widened by the reach of the kernel: a site moved by a tap has the key of no other site.
  std::vector<int64_t> step(dims);
  int64_t cells = 1;
  for (size_t d = dims; d-- > 0; cells *= c.shape[d] + c.padding[d]) step[d] = cells;
  std::vector<int64_t> key(sites + 1);
  for (size_t n = 0; n < sites; ++n) {
    const int32_t* site = indices + n * (dims + 1);
    key[n] = site[0] * cells;
    for (size_t d = 0; d < dims; ++d) key[n] += site[1 + d] * step[d];
  }
  key[sites] = std::numeric_limits<int64_t>::max();  // ends every search

  pairs.assign(taps, {});
  const auto last_taps = static_cast<size_t>(c.kernel[dims - 1]);
  const size_t leading = taps / last_taps, centre = taps / 2;
  const int64_t dilation = c.dilation[dims - 1], reach = c.padding[dims - 1];
  for (size_t lead = 0; lead <= leading / 2; ++lead) {
    int64_t shift = 0;
    for (size_t d = dims - 1, rest = lead; d-- > 0; rest /= static_cast<size_t>(c.kernel[d]))
      shift +=
          (static_cast<int64_t>(rest % static_cast<size_t>(c.kernel[d])) * c.dilation[d] - c.padding[d]) *
          step[d];
    // The taps of one row together; of the row through the centre only those before it.
    const int64_t low = shift - reach, high = lead == leading / 2 ? shift - 1 : shift + reach;
    std::vector<Pair>* row = &pairs[lead * last_taps];
    for (size_t tap = 0; tap < last_taps; ++tap) row[tap].reserve(std::min<size_t>(sites, 1024));
    for (size_t out = 0, from = 0; out < sites; ++out) {
      const int64_t least = key[out] + low, most = key[out] + high;
      while (key[from] < least) ++from;
      for (size_t in = from; key[in] <= most; ++in) {
        const int64_t gap = key[in] - least;
        if (dilation == 1)
          row[gap].push_back({static_cast<int32_t>(in), static_cast<int32_t>(out)});
        else if (gap % dilation == 0)
          row[gap / dilation].push_back({static_cast<int32_t>(in), static_cast<int32_t>(out)});
      }
    }
  }
  pairs[centre].resize(sites);
  for (size_t n = 0; n < sites; ++n) pairs[centre][n] = {static_cast<int32_t>(n), static_cast<int32_t>(n)};
  for (size_t tap = 0; tap < centre; ++tap) {
    std::vector<Pair>& mirrored = pairs[taps - 1 - tap];
    mirrored.reserve(pairs[tap].size());
    for (const Pair& pair : pairs[tap]) mirrored.push_back({pair.out, pair.in});
  }
}

void pairs_and_outputs(const Convolution& c, const int32_t* indices, size_t sites, size_t events,
                       Pairs& pairs, Outputs& outputs) {
  const size_t taps = c.taps(), columns = c.dims() + 1;
  size_t cells = 1;
  for (const int64_t extent : c.out_shape) cells *= static_cast<size_t>(extent);
  const Reach reach = reach_of(c);
  pairs.assign(taps, {});
  outputs.offsets.assign(1, 0);
  Candidates found;
  CellSet set(0);
  bool has_set = false;
  for (size_t e = 0, first = 0, last = 0; e < events; ++e, first = last) {
    while (last < sites && indices[last * columns] == static_cast<int32_t>(e)) ++last;
    gather(c, reach, indices, first, last, found);
    const size_t base = outputs.cell.size(), count = found.cell.size();
    if (count >= std::numeric_limits<uint32_t>::max())
      throw std::length_error("an event has 2^32 pairs or more");
    found.rank.resize(count);
    if (cells / 64 <= 4 * count) {
      has_set ? set.clear() : void(set = CellSet(cells));
      has_set = true;
      for (const int64_t cell : found.cell) set.add(cell);
      set.list(outputs.cell);
      set.ranks(found.cell.data(), count, found.rank.data());
    } else {
      rank_sorted(found, bits_of(cells), outputs.cell);
    }
    if (outputs.cell.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
      throw std::length_error("there are 2^31 output sites or more");
    for (size_t tap = 0; tap < taps; ++tap)
      for (size_t i = found.starts[tap]; i < found.starts[tap + 1]; ++i)
        pairs[tap].push_back({found.in[i], static_cast<int32_t>(base + found.rank[i])});
    outputs.offsets.push_back(static_cast<int64_t>(outputs.cell.size()));
  }
}

}  // namespace hepfeed
