#include "cpu/unpack_cells.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cpu/bus_guard.h"
#include "cpu/isa.h"
#include "cpu/unaligned.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kTileBytes = 16384;   // a part of a first-level cache; from 4 to 64 KiB are as fast
constexpr size_t kStreamBytes = 4096;  // images below are filled in place
constexpr size_t kAheadBytes = 4096;   // of an event that is fetched while the one before is in work

#if HEPFEED_X86
// Moves lines past the cache and clears where they came from; both are aligned to lines.
HEPFEED_TARGET_AVX512 void move_lines_avx512(uint8_t* to, uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_load_si512(from + i));
    _mm512_store_si512(from + i, _mm512_setzero_si512());
  }
}

HEPFEED_TARGET_AVX2 void move_lines_avx2(uint8_t* to, uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine / 2) {
    auto* tile = reinterpret_cast<__m256i*>(from + i);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), _mm256_load_si256(tile));
    _mm256_store_si256(tile, _mm256_setzero_si256());
  }
}

void move_lines(uint8_t* to, uint8_t* from, size_t bytes) {
  isa() >= Isa::avx512 ? move_lines_avx512(to, from, bytes) : move_lines_avx2(to, from, bytes);
}
#endif

bool streams() {
#if HEPFEED_X86
  return isa() >= Isa::avx2;
#else
  return false;
#endif
}

// Orders what was streamed before what follows.
void fence() {
#if HEPFEED_X86
  _mm_sfence();
#endif
}

void fetch(const uint8_t* data, size_t bytes) {
  for (size_t i = 0; i < std::min(bytes, kAheadBytes); i += kLine) __builtin_prefetch(data + i, 0, 2);
}

// Fills images tile by tile: a tile is clear; cells are set in it, and it moves to the image past the cache,
// clear again.
struct Filler {
  const CellRuns& runs;
  const ImageRuns& images;
  alignas(kLine) uint8_t tile[kTileBytes];
  volatile bool clear;  // false while a tile is in work, which a bus error may end

  // Moves tile[from:to] to image[0:to - from], which lies in its line as `from` does.
  void move_tile(uint8_t* image, size_t from, size_t to) {
#if HEPFEED_X86
    const size_t first = (from + kLine - 1) / kLine * kLine, last = to / kLine * kLine;
    std::memcpy(image, tile + from, first - from);
    std::memset(tile, 0, first);
    move_lines(image + first - from, tile + first, last - first);
    std::memcpy(image + last - from, tile + last, to - last);
    std::memset(tile + last, 0, to - last);
#else
    std::memcpy(image, tile + from, to - from);
    std::memset(tile, 0, to);
#endif
  }

  template <class Cell, class Item>
  Fault in_place(size_t e) const {
    const uint8_t *cells = runs.cells[e], *values = images.values[e];
    const auto count = static_cast<size_t>(runs.counts[e]);
    uint8_t* image = images.images[e];
    std::memset(image, 0, images.volume * sizeof(Item));
    for (size_t i = 0; i < count; ++i) {
      const Cell cell = load<Cell>(cells, i);
      if (cell >= images.volume) return Fault::outside;
      store(image, cell, load<Item>(values, i));
    }
    return Fault::none;
  }

  template <class Cell, class Item>
  Fault event(size_t e) {
    const uint8_t *cells = runs.cells[e], *values = images.values[e];
    const auto count = static_cast<size_t>(runs.counts[e]);
    if (e + 1 < runs.events) {
      const auto next = static_cast<size_t>(runs.counts[e + 1]);
      fetch(runs.cells[e + 1], next * sizeof(Cell));
      fetch(images.values[e + 1], next * sizeof(Item));
    }
    uint8_t* image = images.images[e];
    const size_t lead = reinterpret_cast<uintptr_t>(image) % kLine;  // of the image in its first line
    if (!streams() || images.volume * sizeof(Item) < kStreamBytes || lead % sizeof(Item))
      return in_place<Cell, Item>(e);
    if (!clear) std::memset(tile, 0, sizeof(tile));
    clear = false;
    size_t i = 0;
    for (uint64_t first = 0, skip = lead; first < images.volume; skip = 0) {
      const uint64_t room = (kTileBytes - skip) / sizeof(Item);
      const uint64_t items = std::min<uint64_t>(room, images.volume - first);
      uint8_t* const start = tile + skip;
      for (; i < count; ++i) {
        const uint64_t at = load<Cell>(cells, i) - first;  // of a cell that lies before: beyond every tile
        if (at >= items) break;
        store(start, at, load<Item>(values, i));
      }
      move_tile(image + first * sizeof(Item), skip, skip + items * sizeof(Item));
      first += items;
    }
    clear = true;
    if (i == count) return Fault::none;
    fence();
    return in_place<Cell, Item>(e);  // cells in another order, or one outside
  }
};

// A number's coordinates over a shape: quotients and remainders by its extents.  For numbers below 2^32 the
// quotient by d is floor(n m / 2^64) with m = ceil(2^64 / d) = (2^64 + e) / d, e < d: n m / 2^64 exceeds n /
// d by n e / (d 2^64) < 1 / d, too little to reach the next integer.  (Granlund, Montgomery, Division by
// invariant integers using multiplication, PLDI 1994.)
struct Axes {
  explicit Axes(const std::vector<int64_t>& shape) {
    for (const int64_t extent : shape) {
      extents.push_back(static_cast<uint64_t>(extent));
      volume *= extents.back();
      factors.push_back(extent > 1 ? ~uint64_t{0} / extents.back() + 1 : 0);
    }
  }

  std::vector<uint64_t> extents, factors;
  uint64_t volume = 1;
};

__extension__ using Product = unsigned __int128;

struct Unraveller {
  const CellRuns& runs;
  const Axes& axes;
  int32_t first_event;
  int32_t* const* rows;  // of each event

  // With Dims, for that number of axes alone; 0 for any.
  template <class Cell, bool Small, size_t Dims>
  Fault event(size_t e) const {
    const uint8_t* cells = runs.cells[e];
    const auto count = static_cast<size_t>(runs.counts[e]);
    if (e + 1 < runs.events) fetch(runs.cells[e + 1], static_cast<size_t>(runs.counts[e + 1]) * sizeof(Cell));
    const size_t dims = Dims ? Dims : axes.extents.size();
    const uint64_t *const extents = axes.extents.data(), *const factors = axes.factors.data();
    const uint64_t volume = axes.volume;
    const auto number = static_cast<int32_t>(first_event + static_cast<int64_t>(e));
    int32_t* row = rows[e];
    for (size_t i = 0; i < count; ++i, row += 1 + dims) {
      uint64_t left = load<Cell>(cells, i);
      if (left >= volume) return Fault::outside;
      row[0] = number;
      for (size_t d = dims; d > 1; --d) {
        const uint64_t extent = extents[d - 1], factor = factors[d - 1];
        uint64_t quotient = left;
        if constexpr (Small) {
          if (factor) quotient = static_cast<uint64_t>(static_cast<Product>(left) * factor >> 64);
        } else {
          quotient = left / extent;
        }
        row[d] = static_cast<int32_t>(left - quotient * extent);
        left = quotient;
      }
      row[1] = static_cast<int32_t>(left);
    }
    return Fault::none;
  }
};

template <class Cell, bool Small>
Piece unravel_piece(size_t dims) {
  const auto piece = [](auto axes) -> Piece {
    return [](void* context, size_t e) {
      return static_cast<Unraveller*>(context)->event<Cell, Small, decltype(axes)::value>(e);
    };
  };
  switch (dims) {
    case 2:
      return piece(std::integral_constant<size_t, 2>{});
    case 3:
      return piece(std::integral_constant<size_t, 3>{});
    default:
      return piece(std::integral_constant<size_t, 0>{});
  }
}

}  // namespace

void fill_images(const CellRuns& runs, const ImageRuns& images, bool guarded, uint8_t* faults) {
  Filler filler{runs, images, {}, true};
  const Piece piece = with_cell_type(runs.cell_bytes, [&](auto cell) {
    return with_item_type(images.item_bytes, [](auto item) -> Piece {
      return [](void* context, size_t e) {
        return static_cast<Filler*>(context)->event<decltype(cell), decltype(item)>(e);
      };
    });
  });
  run_pieces(piece, &filler, runs.events, guarded, faults);
  fence();
}

void unravel_cells(const CellRuns& runs, const std::vector<int64_t>& shape, int32_t first_event,
                   int32_t* indices, bool guarded, uint8_t* faults) {
  const Axes axes(shape);
  std::vector<int32_t*> rows;
  rows.reserve(runs.events);
  for (size_t e = 0; e < runs.events; ++e) {
    rows.push_back(indices);
    indices += static_cast<size_t>(runs.counts[e]) * (1 + shape.size());
  }
  Unraveller unraveller{runs, axes, first_event, rows.data()};
  const bool small = axes.volume <= uint64_t{1} << 32;
  const Piece piece = with_cell_type(runs.cell_bytes, [&](auto cell) {
    return small ? unravel_piece<decltype(cell), true>(shape.size())
                 : unravel_piece<decltype(cell), false>(shape.size());
  });
  run_pieces(piece, &unraveller, runs.events, guarded, faults);
}

}  // namespace hepfeed
