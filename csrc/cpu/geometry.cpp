#include "cpu/geometry.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/clones.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

// Items of any type, which may lie anywhere.
template <class Word>
using Loose __attribute__((aligned(1), may_alias)) = Word;

// Bytes of one step along each axis, and of one event in front.
std::vector<size_t> strides_of(const int64_t* shape, size_t axes, size_t item) {
  std::vector<size_t> bytes(axes + 1, item);
  for (size_t a = axes; a-- > 0;) bytes[a] = bytes[a + 1] * static_cast<size_t>(shape[a]);
  return bytes;
}

// Writes `fill` again and again, from what is already written.
void fill_items(uint8_t* to, size_t bytes, const uint8_t* fill, size_t item) {
  if (bytes == 0) return;
  if (std::all_of(fill, fill + item, [&](uint8_t byte) { return byte == fill[0]; })) {
    std::memset(to, fill[0], bytes);
    return;
  }
  std::memcpy(to, fill, item);
  for (size_t done = item; done < bytes; done *= 2) std::memcpy(to + done, to, std::min(done, bytes - done));
}

// memcpy without a call for what is short, as rows of small images are.
inline void copy_short(uint8_t* to, const uint8_t* from, size_t bytes) {
  constexpr size_t kPiece = 16, kShort = 16 * kPiece;
  if (bytes < kPiece || bytes > kShort) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (size_t i = 0; i < bytes - kPiece; i += kPiece) std::memcpy(to + i, from + i, kPiece);
  std::memcpy(to + bytes - kPiece, from + bytes - kPiece, kPiece);
}

class Windows {
 public:
  Windows(const int64_t* in_shape, const int64_t* out_shape, size_t axes, size_t item, const uint8_t* fill)
      : in_shape_(in_shape),
        out_shape_(out_shape),
        in_step_(strides_of(in_shape, axes, item)),
        out_step_(strides_of(out_shape, axes, item)),
        spans_(axes),
        fill_(fill),
        item_(item) {}

  size_t in_bytes() const { return in_step_[0]; }
  size_t out_bytes() const { return out_step_[0]; }

  // One event.
  void copy(const uint8_t* in, uint8_t* out, const int64_t* origin) {
    const size_t axes = spans_.size();
    last_ = axes - 1;
    while (last_ > 0 && origin[last_] == 0 && in_shape_[last_] == out_shape_[last_]) --last_;
    for (size_t a = 0; a <= last_; ++a) {
      const int64_t length = out_shape_[a];
      const int64_t low = std::clamp<int64_t>(-origin[a], 0, length);
      const int64_t high = std::clamp<int64_t>(in_shape_[a] - origin[a], low, length);
      const size_t from = in_step_[a + 1], to = out_step_[a + 1];
      spans_[a] = {static_cast<size_t>(high - low),
                   low < high ? static_cast<size_t>(low + origin[a]) * from : 0,
                   static_cast<size_t>(low) * to, static_cast<size_t>(high - low) * to,
                   static_cast<size_t>(length - high) * to};
    }
    copy_axis(in, out, 0);
  }

 private:
  // Where the window lies on the image along an axis; all but the count in bytes.
  struct Span {
    size_t count, skipped, before, within, after;
  };

  // Axes after the last are whole.
  void copy_last(const uint8_t* in, uint8_t* out) const {
    const Span& span = spans_[last_];
    if (span.before) fill_items(out, span.before, fill_, item_);
    copy_short(out + span.before, in + span.skipped, span.within);
    if (span.after) fill_items(out + span.before + span.within, span.after, fill_, item_);
  }

  void copy_axis(const uint8_t* in, uint8_t* out, size_t axis) const {
    if (axis == last_) return copy_last(in, out);
    const Span& span = spans_[axis];
    const size_t from = in_step_[axis + 1], to = out_step_[axis + 1];
    fill_items(out, span.before, fill_, item_);
    in += span.skipped;
    out += span.before;
    if (axis + 1 == last_)
      for (size_t i = 0; i < span.count; ++i) copy_last(in + i * from, out + i * to);
    else
      for (size_t i = 0; i < span.count; ++i) copy_axis(in + i * from, out + i * to, axis + 1);
    fill_items(out + span.within, span.after, fill_, item_);
  }

  const int64_t* in_shape_;
  const int64_t* out_shape_;
  std::vector<size_t> in_step_, out_step_;
  std::vector<Span> spans_;
  const uint8_t* fill_;
  size_t item_;
  size_t last_ = 0;
};

template <class Word>
void reverse_words(const uint8_t* in, uint8_t* out, size_t count) {
  const auto* from = reinterpret_cast<const Loose<Word>*>(in) + count - 1;
  auto* to = reinterpret_cast<Loose<Word>*>(out);
  for_isa([=]() HEPFEED_INLINE {
    for (size_t i = 0; i < count; ++i) to[i] = *(from - i);
  });
}

// out[i] = in[count - 1 - i] for items of `bytes` bytes, which are words of `item` bytes.
void reverse(const uint8_t* in, uint8_t* out, size_t count, size_t bytes) {
  if (count == 0) return;
  switch (bytes) {
    case 1:
      return reverse_words<uint8_t>(in, out, count);
    case 2:
      return reverse_words<uint16_t>(in, out, count);
    case 4:
      return reverse_words<uint32_t>(in, out, count);
    case 8:
      return reverse_words<uint64_t>(in, out, count);
    default:
      for (size_t i = 0; i < count; ++i) std::memcpy(out + i * bytes, in + (count - 1 - i) * bytes, bytes);
  }
}

struct Flips {
  const int64_t* shape;
  std::vector<size_t> step;

  // Axes after `last` keep their order.
  void copy(const uint8_t* in, uint8_t* out, const uint8_t* flags, size_t axis, size_t last) const {
    const size_t bytes = step[axis + 1];
    const auto length = static_cast<size_t>(shape[axis]);
    if (axis == last) return reverse(in, out, length, bytes);
    for (size_t i = 0; i < length; ++i)
      copy(in + (flags[axis] ? length - 1 - i : i) * bytes, out + i * bytes, flags, axis + 1, last);
  }
};

// A plane to be transposed: item (j, i) lies at row(j) + column(i), either of which may run backwards.
struct Plane {
  const uint8_t* in;
  uint8_t* out;
  size_t n;
  size_t row_bytes;  // of input and output alike
  bool rows_back, columns_back;

  const uint8_t* row(size_t j) const { return in + (rows_back ? n - 1 - j : j) * row_bytes; }
  size_t column(size_t i) const { return columns_back ? n - 1 - i : i; }
};

// out[i, j] = in(j, i) for i and j in the given ranges.
template <class Word>
void transpose_part(const Plane& p, size_t i0, size_t i1, size_t j0, size_t j1) {
  for (size_t i = i0; i < i1; ++i) {
    auto* to = reinterpret_cast<Loose<Word>*>(p.out + i * p.row_bytes);
    const size_t column = p.column(i);
    for (size_t j = j0; j < j1; ++j) to[j] = reinterpret_cast<const Loose<Word>*>(p.row(j))[column];
  }
}

template <class Word>
void transpose_tiles(const Plane& p) {
  constexpr size_t kTile = 64 / sizeof(Word);  // a line of the cache
  for (size_t j = 0; j < p.n; j += kTile)
    for (size_t i = 0; i < p.n; i += kTile)
      transpose_part<Word>(p, i, std::min(i + kTile, p.n), j, std::min(j + kTile, p.n));
}

#if HEPFEED_X86
// A tile of 8 x 8 words at out[i.., j..]: rows are interleaved by words, pairs and halves.
HEPFEED_TARGET_AVX2 inline void transpose_tile(const Plane& p, size_t i, size_t j) {
  const size_t first = p.columns_back ? p.n - 8 - i : i;
  __m256i r[8], t[8];
  for (size_t k = 0; k < 8; ++k)
    r[k] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.row(j + k) + 4 * first));
  for (size_t k = 0; k < 8; k += 2) {
    t[k] = _mm256_unpacklo_epi32(r[k], r[k + 1]);
    t[k + 1] = _mm256_unpackhi_epi32(r[k], r[k + 1]);
  }
  for (size_t k = 0; k < 8; k += 4) {
    r[k] = _mm256_unpacklo_epi64(t[k], t[k + 2]);
    r[k + 1] = _mm256_unpackhi_epi64(t[k], t[k + 2]);
    r[k + 2] = _mm256_unpacklo_epi64(t[k + 1], t[k + 3]);
    r[k + 3] = _mm256_unpackhi_epi64(t[k + 1], t[k + 3]);
  }
  for (size_t k = 0; k < 4; ++k) {
    t[k] = _mm256_permute2x128_si256(r[k], r[k + 4], 0x20);
    t[k + 4] = _mm256_permute2x128_si256(r[k], r[k + 4], 0x31);
  }
  for (size_t k = 0; k < 8; ++k)
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(p.out + (i + (p.columns_back ? 7 - k : k)) * p.row_bytes + 4 * j), t[k]);
}

HEPFEED_TARGET_AVX2 void transpose4_avx2(const Plane& p) {
  const size_t whole = p.n / 8 * 8;
  // Two tiles by two, so that lines of the cache are read and written whole.
  for (size_t j = 0; j < whole; j += 16)
    for (size_t i = 0; i < whole; i += 16)
      for (size_t k = i; k < std::min(i + 16, whole); k += 8)
        for (size_t l = j; l < std::min(j + 16, whole); l += 8) transpose_tile(p, k, l);
  transpose_part<uint32_t>(p, 0, whole, whole, p.n);
  transpose_part<uint32_t>(p, whole, p.n, 0, p.n);
}
#endif

void transpose(const Plane& plane, size_t inner_bytes) {
  switch (inner_bytes) {
    case 1:
      return transpose_tiles<uint8_t>(plane);
    case 2:
      return transpose_tiles<uint16_t>(plane);
    case 4:
#if HEPFEED_X86
      if (isa() >= Isa::avx2) return transpose4_avx2(plane);
#endif
      return transpose_tiles<uint32_t>(plane);
    case 8:
      return transpose_tiles<uint64_t>(plane);
    default:
      for (size_t i = 0; i < plane.n; ++i)
        for (size_t j = 0; j < plane.n; ++j)
          std::memcpy(plane.out + i * plane.row_bytes + j * inner_bytes,
                      plane.row(j) + plane.column(i) * inner_bytes, inner_bytes);
  }
}

template <class Word>
struct Nonzero {
  Word mask;

  bool any(const Loose<Word>* items, size_t count) const {
    Word found = 0;
    for (size_t i = 0; i < count; ++i) found = static_cast<Word>(found | items[i]);
    return (found & mask) != 0;
  }

  // Widens box[axis..] by the part of an image that begins at `items`; returns whether any is not 0.
  bool widen(const Loose<Word>* items, const int64_t* shape, const std::vector<size_t>& step, size_t axes,
             size_t axis, int64_t* box) const {
    const auto length = static_cast<size_t>(shape[axis]);
    if (!any(items, step[axis])) return false;
    if (axis + 1 == axes) {
      size_t first = 0, last = length;
      while (!(items[first] & mask)) ++first;
      while (!(items[last - 1] & mask)) --last;
      grow(box + 2 * axis, first, last);
      return true;
    }
    for (size_t i = 0; i < length; ++i)
      if (widen(items + i * step[axis + 1], shape, step, axes, axis + 1, box)) grow(box + 2 * axis, i, i + 1);
    return true;
  }

  static void grow(int64_t* range, size_t first, size_t last) {
    range[0] = std::min(range[0], static_cast<int64_t>(first));
    range[1] = std::max(range[1], static_cast<int64_t>(last));
  }
};

template <class Word>
void extents_of(const uint8_t* in, const int64_t* shape, size_t axes, uint64_t mask, size_t events,
                int64_t* out) {
  const Nonzero<Word> nonzero{static_cast<Word>(mask)};
  const auto step = strides_of(shape, axes, 1);
  const auto* items = reinterpret_cast<const Loose<Word>*>(in);
  for (size_t e = 0; e < events; ++e, items += step[0], out += 2 * axes) {
    for (size_t a = 0; a < axes; ++a) {
      out[2 * a] = shape[a];
      out[2 * a + 1] = 0;
    }
    if (!nonzero.widen(items, shape, step, axes, 0, out)) std::fill(out, out + 2 * axes, int64_t{0});
  }
}

}  // namespace

void window(const uint8_t* in, const int64_t* in_shape, uint8_t* out, const int64_t* out_shape, size_t axes,
            size_t item, size_t events, const int64_t* origin, const uint8_t* fill) {
  Windows windows(in_shape, out_shape, axes, item, fill);
  for (size_t e = 0; e < events; ++e) {
    windows.copy(in, out, origin);
    in += windows.in_bytes();
    out += windows.out_bytes();
    origin += axes;
  }
}

void flip(const uint8_t* in, uint8_t* out, const int64_t* shape, size_t axes, size_t item, size_t events,
          const uint8_t* flags) {
  const Flips flips{shape, strides_of(shape, axes, item)};
  for (size_t e = 0; e < events; ++e, flags += axes) {
    size_t after = axes;
    while (after > 0 && !flags[after - 1]) --after;
    if (after)
      flips.copy(in, out, flags, 0, after - 1);
    else
      std::memcpy(out, in, flips.step[0]);
    in += flips.step[0];
    out += flips.step[0];
  }
}

void rotate90(const uint8_t* in, uint8_t* out, size_t outer, size_t n, size_t middle, size_t inner_bytes,
              size_t item, size_t events, const uint8_t* quarters) {
  const size_t line = n * inner_bytes, row = middle * line, block = n * row;
  const auto extent = static_cast<int64_t>(n);
  const int64_t shape[] = {static_cast<int64_t>(outer), extent, static_cast<int64_t>(middle), extent,
                           static_cast<int64_t>(inner_bytes / item)};
  const Flips half_turn{shape, strides_of(shape, 5, item)};
  const uint8_t both[] = {0, 1, 0, 1, 0};
  for (size_t e = 0; e < events; ++e, in += outer * block, out += outer * block) {
    const int quarter = quarters[e] & 3;
    if (quarter == 0) {
      std::memcpy(out, in, outer * block);
    } else if (quarter == 2) {
      half_turn.copy(in, out, both, 0, 3);
    } else {
      for (size_t o = 0; o < outer; ++o)
        for (size_t m = 0; m < middle; ++m) {
          const size_t start = o * block + m * line;
          transpose({in + start, out + start, n, row, quarter == 3, quarter == 1}, inner_bytes);
        }
    }
  }
}

void extents(const uint8_t* in, const int64_t* shape, size_t axes, size_t item, uint64_t mask, size_t events,
             int64_t* out) {
  switch (item) {
    case 1:
      return extents_of<uint8_t>(in, shape, axes, mask, events, out);
    case 2:
      return extents_of<uint16_t>(in, shape, axes, mask, events, out);
    case 4:
      return extents_of<uint32_t>(in, shape, axes, mask, events, out);
    default:
      return extents_of<uint64_t>(in, shape, axes, mask, events, out);
  }
}

}  // namespace hepfeed
