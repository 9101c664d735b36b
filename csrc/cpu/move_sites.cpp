#include "cpu/move_sites.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace hepfeed {
namespace {

constexpr size_t kMaxAxes = 16;

// Appends the rows first .. last - 1, which agree in the coordinates before `axis`, in the order of their
// reversed coordinates: runs of one coordinate stay together, and come in the other order where it is
// reversed.
void append(const Sites& sites, const uint8_t* reversed, size_t axis, size_t last_reversed, size_t first,
            size_t last, std::vector<uint32_t>& order) {
  if (axis > last_reversed) {
    for (size_t row = first; row < last; ++row) order.push_back(static_cast<uint32_t>(row));
    return;
  }
  const size_t width = 1 + sites.axes;
  const int32_t* const column = sites.indices + 1 + axis;
  if (reversed[axis]) {
    for (size_t end = last; end > first;) {
      size_t begin = end - 1;
      const int32_t value = column[begin * width];
      while (begin > first && column[(begin - 1) * width] == value) --begin;
      append(sites, reversed, axis + 1, last_reversed, begin, end, order);
      end = begin;
    }
    return;
  }
  for (size_t begin = first; begin < last;) {
    size_t end = begin + 1;
    const int32_t value = column[begin * width];
    while (end < last && column[end * width] == value) ++end;
    append(sites, reversed, axis + 1, last_reversed, begin, end, order);
    begin = end;
  }
}

// How the coordinates of one event change: x' = base + (x ^ sign) - sign, where the sign is 0, or -1 to
// reverse. 32 bits are enough, and wrap: what lies outside by more than they hold is left out beforehand.
struct Change {
  uint32_t base[kMaxAxes], sign[kMaxAxes], shape[kMaxAxes];
};

// Writes the sites `row(0) .. row(count - 1)` that end within the shape, behind `kept` others.
template <size_t kAxes, size_t kFeatureBytes, class Row>
size_t write(const Sites& sites, const Change& change, int32_t event, size_t count, const Row& row,
             size_t kept, int32_t* indices, uint8_t* features) {
  const size_t axes = kAxes ? kAxes : sites.axes;
  const size_t bytes = kFeatureBytes ? kFeatureBytes : sites.feature_bytes;
  const size_t width = 1 + axes;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = row(i);
    const int32_t* const from = sites.indices + at * width + 1;
    int32_t* const to = indices + kept * width;
    bool inside = true;
    to[0] = event;
    for (size_t axis = 0; axis < axes; ++axis) {
      const uint32_t x =
          change.base[axis] + ((static_cast<uint32_t>(from[axis]) ^ change.sign[axis]) - change.sign[axis]);
      inside &= x < change.shape[axis];
      to[1 + axis] = static_cast<int32_t>(x);
    }
    std::memcpy(features + kept * bytes, sites.features + at * bytes, bytes);
    kept += inside;  // else the next site takes its place
  }
  return kept;
}

// The same for three axes and features of four bytes, a site at a time in one vector of (event, coordinates).
using Vector = uint32_t __attribute__((vector_size(16)));

template <class Row>
size_t write_volume(const Sites& sites, const Change& change, int32_t event, size_t count, const Row& row,
                    size_t kept, int32_t* indices, uint8_t* features) {
  const Vector base = {static_cast<uint32_t>(event), change.base[0], change.base[1], change.base[2]};
  const Vector sign = {0, change.sign[0], change.sign[1], change.sign[2]};
  const Vector keep = {0, ~uint32_t{0}, ~uint32_t{0}, ~uint32_t{0}};
  const Vector shape = {1, change.shape[0], change.shape[1], change.shape[2]};
  for (size_t i = 0; i < count; ++i) {
    const size_t at = row(i);
    Vector x;
    std::memcpy(&x, sites.indices + at * 4, 16);
    x = base + (((x & keep) ^ sign) - sign);
    std::memcpy(indices + kept * 4, &x, 16);
    std::memcpy(features + kept * 4, sites.features + at * 4, 4);
    const auto inside = (x & keep) < shape;
    uint64_t halves[2];
    std::memcpy(halves, &inside, 16);
    kept += (halves[0] & halves[1]) == ~uint64_t{0};  // else the next site takes its place
  }
  return kept;
}

template <class Row>
size_t write_sites(const Sites& sites, const Change& change, int32_t event, size_t count, const Row& row,
                   size_t kept, int32_t* indices, uint8_t* features) {
  const auto with = [&](auto axes, auto bytes) {
    return write<axes.value, bytes.value>(sites, change, event, count, row, kept, indices, features);
  };
  const std::integral_constant<size_t, 0> any;
  const std::integral_constant<size_t, 2> two;
  const std::integral_constant<size_t, 4> four;
  if (sites.feature_bytes == 4 && sites.axes == 2) return with(two, four);
  if (sites.feature_bytes == 4 && sites.axes == 3)
    return write_volume(sites, change, event, count, row, kept, indices, features);
  return with(any, any);
}

}  // namespace

size_t move_sites(const Sites& sites, int64_t events, const uint8_t* reversed, const int64_t* origin,
                  const int64_t* lengths, const int64_t* shape, int32_t* indices, uint8_t* features) {
  const size_t axes = sites.axes, width = 1 + axes;
  if (axes > kMaxAxes) throw std::invalid_argument("too many axes");
  std::vector<uint32_t> order;
  Change change{};
  for (size_t axis = 0; axis < axes; ++axis) change.shape[axis] = static_cast<uint32_t>(shape[axis]);
  size_t kept = 0;
  int32_t before = -1;
  for (size_t first = 0; first < sites.count;) {
    const int32_t event = sites.indices[first * width];
    if (event <= before || event >= events) throw std::invalid_argument("sites must be sorted by event");
    before = event;
    size_t last = first + 1;
    while (last < sites.count && sites.indices[last * width] == event) ++last;
    const uint8_t* const turned = reversed ? reversed + static_cast<size_t>(event) * axes : nullptr;
    const int64_t* const start = origin ? origin + static_cast<size_t>(event) * axes : nullptr;
    bool any = false, reachable = true;
    size_t last_reversed = 0;
    for (size_t axis = 0; axis < axes; ++axis) {
      const bool turns = turned && turned[axis];
      const int64_t origin_here = start ? start[axis] : 0;
      reachable &= origin_here < lengths[axis] && origin_here > -shape[axis];
      change.base[axis] = static_cast<uint32_t>((turns ? lengths[axis] - 1 : 0) - origin_here);
      change.sign[axis] = turns ? ~uint32_t{0} : 0;
      if (turns) {
        any = true;
        last_reversed = axis;
      }
    }
    const size_t count = last - first;
    if (!reachable) {
      first = last;
      continue;
    }
    if (any) {
      order.clear();
      append(sites, turned, 0, last_reversed, first, last, order);
      const auto row = [&](size_t i) { return static_cast<size_t>(order[i]); };
      kept = write_sites(sites, change, event, count, row, kept, indices, features);
    } else {
      const auto row = [&](size_t i) { return first + i; };
      kept = write_sites(sites, change, event, count, row, kept, indices, features);
    }
    first = last;
  }
  return kept;
}

}  // namespace hepfeed
