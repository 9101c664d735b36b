#include "cpu/warp.h"

#include <algorithm>
#include <cstring>

#include "cpu/clones.h"

namespace hepfeed {
namespace {

struct Bytes16 {
  uint64_t words[2];
};

constexpr size_t kPlaces = 128;

// Places along the last axis and where their values come from: y[a][i] along axis a.
template <size_t Axes>
struct Row {
  size_t count;
  int64_t offset;  // of the first place, in items
  double y[Axes][kPlaces];
};

// Calls at(row) for all places of an image, by pieces of its rows.
template <size_t Axes, class At>
void for_rows(const Image& image, size_t event, const Map& map, const At& at) {
  constexpr size_t kLast = Axes - 1;
  int64_t places = 1;
  double centre[Axes];
  for (size_t a = 0; a < Axes; ++a) {
    places *= image.length[a];
    centre[a] = 0.5 * static_cast<double>(image.length[a] - 1);
  }
  if (places == 0) return;
  const double* matrix = map.matrix ? map.matrix + event * Axes * Axes : nullptr;
  const float* field = map.field ? map.field + static_cast<int64_t>(event * Axes) * places : nullptr;
  const int64_t length = image.length[kLast];
  Row<Axes> row;
  int64_t x[Axes] = {};
  for (int64_t place = 0; place < places;) {
    const int64_t first = x[kLast];
    const size_t count = static_cast<size_t>(std::min<int64_t>(kPlaces, length - first));
    row.count = count;
    row.offset = 0;
    for (size_t a = 0; a < Axes; ++a) row.offset += x[a] * image.stride[a];
    for (size_t a = 0; a < Axes; ++a) {
      double* y = row.y[a];
      if (matrix) {
        double turned = 0;
        for (size_t b = 0; b < kLast; ++b)
          turned += matrix[a * Axes + b] * (static_cast<double>(x[b]) - centre[b]);
        const double slope = matrix[a * Axes + kLast], middle = centre[a], last = centre[kLast];
        for_isa([=]() HEPFEED_INLINE {
          for (size_t i = 0; i < count; ++i) {
            const double along = static_cast<double>(static_cast<int32_t>(i)) + static_cast<double>(first);
            y[i] = middle + (turned + slope * (along - last));
          }
        });
      } else {
        const float* from = field + static_cast<int64_t>(a) * places + place;
        const double step = a == kLast ? 1.0 : 0.0, start = static_cast<double>(x[a]);
        for_isa([=]() HEPFEED_INLINE {
          for (size_t i = 0; i < count; ++i)
            y[i] = start + step * static_cast<double>(static_cast<int32_t>(i)) + static_cast<double>(from[i]);
        });
      }
    }
    at(row);
    place += static_cast<int64_t>(count);
    x[kLast] += static_cast<int64_t>(count);
    for (size_t a = kLast; a > 0 && x[a] == image.length[a]; --a) {
      x[a] = 0;
      ++x[a - 1];
    }
  }
}

template <size_t Axes, class Word>
void nearest(const Word* in, Word* out, const Image& image, size_t event, const Map& map, Word fill) {
  for_rows<Axes>(image, event, map, [&](const Row<Axes>& row) {
    int64_t source[kPlaces];  // -1: beyond the image
    for (size_t i = 0; i < row.count; ++i) {
      int64_t from = 0;
      bool inside = true;
      for (size_t a = 0; a < Axes; ++a) {
        const double y = row.y[a][i] + 0.5;
        inside &= (y >= 0) & (y < static_cast<double>(image.length[a]));  // false for NaN too
        from += static_cast<int64_t>(inside ? y : 0.0) * image.stride[a];
      }
      source[i] = inside ? from : -1;
    }
    const int64_t step = image.stride[Axes - 1];
    for (size_t k = 0; k < image.carried_count; ++k) {
      Word* to = out + row.offset + image.carried[k];
      const Word* items = in + image.carried[k];
      if (image.run == 1) {
        for (size_t i = 0; i < row.count; ++i, to += step) *to = source[i] < 0 ? fill : items[source[i]];
      } else {
        for (size_t i = 0; i < row.count; ++i, to += step) {
          if (source[i] < 0)
            std::fill_n(to, image.run, fill);
          else
            std::copy_n(items + source[i], image.run, to);
        }
      }
    }
  });
}

// The corners around one place, those of weight 0 left out.
template <size_t Axes>
struct Corners {
  static constexpr size_t kAll = size_t{1} << Axes;
  double weight[kAll];
  int64_t source[kAll];  // -1: beyond the image
  size_t used;           // 0: all are beyond

  HEPFEED_INLINE Corners(const Image& image, const double* y) : used(0) {
    int64_t low[Axes];
    double part[Axes];
    for (size_t a = 0; a < Axes; ++a) {
      if (!(y[a] > -1.0 && y[a] < static_cast<double>(image.length[a]))) return;
      low[a] = static_cast<int64_t>(y[a] + 1.0) - 1;
      // The sum above may have been rounded up to the next integer.
      if (static_cast<double>(low[a]) > y[a]) --low[a];
      part[a] = y[a] - static_cast<double>(low[a]);
    }
    for (size_t c = 0; c < kAll; ++c) {
      double w = 1;
      int64_t from = 0;
      bool inside = true;
      for (size_t a = 0; a < Axes; ++a) {
        const int64_t upper = c >> (Axes - 1 - a) & 1, q = low[a] + upper;
        w *= upper ? part[a] : 1.0 - part[a];
        inside &= (q >= 0) & (q < image.length[a]);
        from += q * image.stride[a];
      }
      weight[used] = w;
      source[used] = inside ? from : -1;
      used += w != 0;
    }
  }
};

// Mixes what lies at the corners, item by item.
template <size_t Axes, class T>
inline HEPFEED_INLINE void mix_few(const Corners<Axes>& corners, const T* items, T* to, size_t count,
                                   double fill) {
  for (size_t r = 0; r < count; ++r) {
    double sum = 0;
    for (size_t c = 0; c < corners.used; ++c) {
      const int64_t from = corners.source[c];
      sum +=
          corners.weight[c] * (from < 0 ? fill : static_cast<double>(items[from + static_cast<int64_t>(r)]));
    }
    to[r] = static_cast<T>(sum);
  }
}

// The same with the sums in the same order, corner by corner: loops of many items become vector code.
template <size_t Axes, class T>
inline HEPFEED_INLINE void mix_many(const Corners<Axes>& corners, const T* items, T* to, size_t count,
                                    double fill) {
  constexpr size_t kPart = 32;
  for (size_t first = 0; first < count; first += kPart, items += kPart, to += kPart) {
    const size_t some = count - first < kPart ? count - first : kPart;
    double sum[kPart] = {};
    for (size_t c = 0; c < corners.used; ++c) {
      const double weight = corners.weight[c];
      if (corners.source[c] < 0) {
        for (size_t r = 0; r < some; ++r) sum[r] += weight * fill;
      } else {
        const T* from = items + corners.source[c];
        for (size_t r = 0; r < some; ++r) sum[r] += weight * static_cast<double>(from[r]);
      }
    }
    for (size_t r = 0; r < some; ++r) to[r] = static_cast<T>(sum[r]);
  }
}

template <bool Many, size_t Axes, class T>
inline HEPFEED_INLINE void linear_row(const T* in, T* out, const Image& image, const Row<Axes>& row,
                                      double fill) {
  for (size_t i = 0; i < row.count; ++i) {
    double y[Axes];
    for (size_t a = 0; a < Axes; ++a) y[a] = row.y[a][i];
    const Corners<Axes> corners(image, y);
    const int64_t offset = row.offset + static_cast<int64_t>(i) * image.stride[Axes - 1];
    for (size_t k = 0; k < image.carried_count; ++k) {
      const T* items = in + image.carried[k];
      T* to = out + offset + image.carried[k];
      if (corners.used == 0)
        for (size_t r = 0; r < image.run; ++r) to[r] = static_cast<T>(fill);
      else if constexpr (Many)
        mix_many(corners, items, to, image.run, fill);
      else
        mix_few(corners, items, to, image.run, fill);
    }
  }
}

template <size_t Axes, class T>
void linear(const T* in, T* out, const Image& image, size_t event, const Map& map, double fill) {
  constexpr size_t kMany = 4;
  for_rows<Axes>(image, event, map, [&](const Row<Axes>& row) {
    if (image.run < kMany)
      linear_row<false>(in, out, image, row, fill);
    else
      for_isa([&]() HEPFEED_INLINE { linear_row<true>(in, out, image, row, fill); });
  });
}

template <class Word>
void nearest_of(const uint8_t* in, uint8_t* out, const Image& image, size_t events, const Map& map,
                const uint8_t* fill) {
  Word value;
  std::memcpy(&value, fill, sizeof(Word));
  const auto* from = reinterpret_cast<const Word*>(in);
  auto* to = reinterpret_cast<Word*>(out);
  for (size_t e = 0; e < events; ++e, from += image.items, to += image.items) {
    if (image.axes == 1) nearest<1>(from, to, image, e, map, value);
    if (image.axes == 2) nearest<2>(from, to, image, e, map, value);
    if (image.axes == 3) nearest<3>(from, to, image, e, map, value);
  }
}

constexpr int64_t kLanes = 16;

// out[i] = scale sum_k taps[k] in[i + k step] for i < count.
template <class Out>
inline HEPFEED_INLINE void correlate(const double* in, Out* out, int64_t count, int64_t step,
                                     const double* taps, int64_t tap_count, double scale) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    double sum[kLanes] = {};
    for (int64_t k = 0; k < tap_count; ++k)
      for (int64_t l = 0; l < kLanes; ++l) sum[l] += taps[k] * in[i + k * step + l];
    for (int64_t l = 0; l < kLanes; ++l) out[i + l] = static_cast<Out>(scale * sum[l]);
  }
  for (; i < count; ++i) {
    double sum = 0;
    for (int64_t k = 0; k < tap_count; ++k) sum += taps[k] * in[i + k * step];
    out[i] = static_cast<Out>(scale * sum);
  }
}

// Along the middle axis of (outer, length, inner).
template <class Out>
void smooth_axis(const double* in, Out* out, int64_t outer, int64_t length, int64_t inner, const double* taps,
                 int64_t radius, double scale, double* line) {
  if (inner == 1) std::fill_n(line, length + 2 * radius, 0.0);
  for (int64_t o = 0; o < outer; ++o, in += length * inner, out += length * inner) {
    if (inner == 1) {
      std::copy_n(in, length, line + radius);
      for_isa([&]() HEPFEED_INLINE { correlate(line, out, length, 1, taps, 2 * radius + 1, scale); });
      continue;
    }
    for (int64_t x = 0; x < length; ++x) {
      const int64_t first = std::max<int64_t>(0, radius - x);
      const int64_t last = std::min(2 * radius + 1, length + radius - x);
      for_isa([&]() HEPFEED_INLINE {
        correlate(in + (x + first - radius) * inner, out + x * inner, inner, inner, taps + first,
                  last - first, scale);
      });
    }
  }
}

}  // namespace

void warp_nearest(const uint8_t* in, uint8_t* out, size_t item, const Image& image, size_t events,
                  const Map& map, const uint8_t* fill) {
  switch (item) {
    case 1:
      return nearest_of<uint8_t>(in, out, image, events, map, fill);
    case 2:
      return nearest_of<uint16_t>(in, out, image, events, map, fill);
    case 4:
      return nearest_of<uint32_t>(in, out, image, events, map, fill);
    case 8:
      return nearest_of<uint64_t>(in, out, image, events, map, fill);
    default:
      return nearest_of<Bytes16>(in, out, image, events, map, fill);
  }
}

template <class T>
void warp_linear(const T* in, T* out, const Image& image, size_t events, const Map& map, double fill) {
  for (size_t e = 0; e < events; ++e, in += image.items, out += image.items) {
    if (image.axes == 1) linear<1>(in, out, image, e, map, fill);
    if (image.axes == 2) linear<2>(in, out, image, e, map, fill);
    if (image.axes == 3) linear<3>(in, out, image, e, map, fill);
  }
}

template void warp_linear<float>(const float*, float*, const Image&, size_t, const Map&, double);
template void warp_linear<double>(const double*, double*, const Image&, size_t, const Map&, double);

void smooth(const double* in, float* out, size_t count, size_t axes, const int64_t* length,
            const double* taps, int64_t radius, double scale, double* scratch) {
  int64_t places = 1;
  for (size_t a = 0; a < axes; ++a) places *= length[a];
  double* half[] = {scratch, scratch + places};
  double* line = scratch + 2 * places;
  for (size_t f = 0; f < count; ++f, in += places, out += places) {
    const double* from = in;
    int64_t outer = 1, inner = places;
    for (size_t a = 0; a < axes; ++a) {
      if (length[a] == 0) return;
      inner /= length[a];
      if (a + 1 == axes) {
        smooth_axis(from, out, outer, length[a], inner, taps, radius, scale, line);
      } else {
        smooth_axis(from, half[a % 2], outer, length[a], inner, taps, radius, 1.0, line);
        from = half[a % 2];
      }
      outer *= length[a];
    }
  }
}

}  // namespace hepfeed
