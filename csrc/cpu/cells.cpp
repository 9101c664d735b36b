#include "cpu/cells.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "cpu/clones.h"
#include "cpu/number_types.h"

namespace hepfeed {
namespace {

constexpr size_t kBlock = 512;  // points whose coordinates and cells stay in the first-level cache
constexpr int32_t kOut = -1;

inline double number(Half value) { return half_to_float(value.bits); }
template <class T>
inline double number(T value) {
  return static_cast<double>(value);
}

inline int32_t outside_bin(double v, int64_t count, Outside outside) {
  if (outside == Outside::drop || std::isnan(v)) return kOut;
  return v < 0 ? 0 : static_cast<int32_t>(count - 1);
}

// Bins of some points along one axis; returns whether some has a NaN.
bool uniform_bins(const Axis& axis, const double* x, size_t rows, Outside outside, int32_t* bin) {
  const double low = axis.low, size = axis.size, count = static_cast<double>(axis.count);
  int32_t least = 0;
  for_isa([&]() HEPFEED_INLINE {
    for (size_t i = 0; i < rows; ++i) {
      const double v = (x[i] - low) / size;
      // Truncation is floor for what is not below 0.
      bin[i] = static_cast<int32_t>(v >= 0 && v < count ? v : -1.0);
      least = bin[i] < least ? bin[i] : least;
    }
  });
  if (least == 0) return false;
  bool has_nan = false;
  for (size_t i = 0; i < rows; ++i) {
    if (bin[i] != kOut) continue;
    const double v = (x[i] - low) / size;
    has_nan |= std::isnan(v);
    bin[i] = outside_bin(v, axis.count, outside);
  }
  return has_nan;
}

bool edge_bins(const Axis& axis, const double* x, size_t rows, Outside outside, int32_t* bin) {
  const double* edges = axis.edges;
  const double low = edges[0], high = edges[axis.count],
               scale = static_cast<double>(axis.count) / (high - low);
  bool has_nan = false;
  for (size_t i = 0; i < rows; ++i) {
    const double v = x[i];
    if (v >= low && v < high) {
      // A guess that is right for equal bins, up to rounding.
      auto guess = std::min(static_cast<int64_t>((v - low) * scale), axis.count - 1);
      if (v < edges[guess] || v >= edges[guess + 1])
        guess = std::upper_bound(edges, edges + axis.count + 1, v) - edges - 1;
      bin[i] = static_cast<int32_t>(guess);
    } else if (v == high && axis.last_closed) {
      bin[i] = static_cast<int32_t>(axis.count - 1);
    } else {
      has_nan |= std::isnan(v);
      bin[i] = outside_bin(v - low, axis.count, outside);
    }
  }
  return has_nan;
}

// Up to kBlock points from `first` on.
template <class T>
bool bins_of(const Axis& axis, size_t first, size_t rows, Outside outside, int32_t* bin) {
  const T* from = static_cast<const T*>(axis.data) + first * axis.stride;
  double x[kBlock];
  for (size_t i = 0; i < rows; ++i) x[i] = number(from[i * axis.stride]);
  return axis.edges ? edge_bins(axis, x, rows, outside, bin) : uniform_bins(axis, x, rows, outside, bin);
}

bool bins(const Axis& axis, size_t first, size_t rows, Outside outside, int32_t* bin) {
  return with_number_type(axis.type, "coordinates without a number type have no bins", [&](auto zero) {
    return bins_of<decltype(zero)>(axis, first, rows, outside, bin);
  });
}

// Takes the coordinate along the last axis off some cell numbers below 2^31: cell = quotient * extent +
// coordinate. (cell + 0.5) / extent is half a cell away from any integer, so that rounding can't change its
// floor.
void split(int32_t* cell, size_t rows, int64_t extent, int32_t* coordinate, size_t stride) {
  const double inverse = 1.0 / static_cast<double>(extent);
  const auto width = static_cast<int32_t>(extent);
  for_isa([&]() HEPFEED_INLINE {
    for (size_t i = 0; i < rows; ++i) {
      const auto quotient = static_cast<int32_t>((static_cast<double>(cell[i]) + 0.5) * inverse);
      coordinate[i * stride] = cell[i] - quotient * width;
      cell[i] = quotient;
    }
  });
}

void sites_of_few_cells(const int64_t* cell, size_t rows, int32_t event, const int64_t* shape, size_t dims,
                        int32_t* indices) {
  const size_t stride = 1 + dims;
  int32_t left[kBlock];
  for (size_t first = 0; first < rows; first += kBlock, cell += kBlock, indices += kBlock * stride) {
    const size_t some = std::min(kBlock, rows - first);
    for (size_t i = 0; i < some; ++i) left[i] = static_cast<int32_t>(cell[i]);
    for (size_t d = dims - 1; d > 0; --d) split(left, some, shape[d], indices + 1 + d, stride);
    for (size_t i = 0; i < some; ++i) {
      indices[i * stride] = event;
      indices[i * stride + 1] = left[i];
    }
  }
}

void sites_of_many_cells(const int64_t* cell, size_t rows, int32_t event, const int64_t* shape, size_t dims,
                         int32_t* indices) {
  for (size_t i = 0; i < rows; ++i, indices += 1 + dims) {
    int64_t left = cell[i];
    for (size_t d = dims - 1; d > 0; --d) {
      const int64_t quotient = left / shape[d];
      indices[1 + d] = static_cast<int32_t>(left - quotient * shape[d]);
      left = quotient;
    }
    indices[1] = static_cast<int32_t>(left);
    indices[0] = event;
  }
}

}  // namespace

size_t cells_of_points(const Axis* axes, size_t dims, size_t rows, Outside outside, int64_t* cell) {
  int32_t bin[kBlock];
  for (size_t first = 0; first < rows; first += kBlock) {
    const size_t some = std::min(kBlock, rows - first);
    int64_t* here = cell + first;
    std::fill(here, here + some, int64_t{0});
    for (size_t d = 0; d < dims; ++d) {
      if (bins(axes[d], first, some, outside, bin)) {
        for (size_t i = 0; i < some; ++i) {
          int32_t one;
          if (bins(axes[d], first + i, 1, outside, &one)) return first + i;
        }
      }
      const int64_t count = axes[d].count;
      for (size_t i = 0; i < some; ++i) {
        const int64_t next = here[i] * count + bin[i];
        here[i] = (here[i] | bin[i]) < 0 ? -1 : next;
      }
    }
  }
  return rows;
}

void cells_of_sites(const int64_t* coords, size_t rows, size_t dims, const int64_t* shape,
                    const uint8_t* keep, int64_t* cell) {
  for (size_t i = 0; i < rows; ++i, coords += dims) {
    bool inside = !keep || keep[i];
    int64_t flat = 0;
    for (size_t d = 0; d < dims; ++d) {
      inside &= static_cast<uint64_t>(coords[d]) < static_cast<uint64_t>(shape[d]);
      // Unsigned, since what is far outside may overflow; it is not used.
      flat = static_cast<int64_t>(static_cast<uint64_t>(flat) * static_cast<uint64_t>(shape[d]) +
                                  static_cast<uint64_t>(coords[d]));
    }
    cell[i] = inside ? flat : -1;
  }
}

void sites_of_cells(const int64_t* cell, const int64_t* offsets, size_t events, const int64_t* shape,
                    size_t dims, int32_t* indices) {
  int64_t cells = 1;
  for (size_t d = 0; d < dims; ++d) cells *= shape[d];
  const auto sites_of =
      cells <= std::numeric_limits<int32_t>::max() ? sites_of_few_cells : sites_of_many_cells;
  for (size_t e = 0; e < events; ++e)
    sites_of(cell + offsets[e], static_cast<size_t>(offsets[e + 1] - offsets[e]), static_cast<int32_t>(e),
             shape, dims, indices + offsets[e] * static_cast<int64_t>(1 + dims));
}

}  // namespace hepfeed
