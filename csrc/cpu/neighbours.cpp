#include "cpu/neighbours.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "cpu/clones.h"

namespace hepfeed {
namespace {

constexpr uint32_t kLeaf = 32;  // more: fewer boxes, more distances
constexpr size_t kFew = 128;    // points that are searched faster than a tree of them

// distance[i] = squared distance of the point to i, at (dims, total) in `first`.
void distances(const double* first, size_t total, size_t count, size_t dims, const double* point,
               double* distance) {
  for_isa([=]() HEPFEED_INLINE {
    for (size_t i = 0; i < count; ++i) {
      const double gap = first[i] - point[0];
      distance[i] = gap * gap;
    }
    for (size_t d = 1; d < dims; ++d) {
      const double* x = first + d * total;
      const double here = point[d];
      for (size_t i = 0; i < count; ++i) {
        const double gap = x[i] - here;
        distance[i] += gap * gap;
      }
    }
  });
}

}  // namespace

void Neighbours::build(const double* points, size_t count, size_t dims) {
  dims_ = dims;
  number_.resize(count);
  std::iota(number_.begin(), number_.end(), 0u);
  place_.resize(count);
  coordinates_.resize(count * dims);
  nodes_.clear();
  boxes_.clear();
  if (count > kFew) split(points, 0, static_cast<uint32_t>(count));
  for (size_t i = 0; i < count; ++i) {
    place_[number_[i]] = static_cast<uint32_t>(i);
    for (size_t d = 0; d < dims; ++d) coordinates_[d * count + i] = points[number_[i] * dims + d];
  }
}

void Neighbours::split(const double* points, uint32_t first, uint32_t last) {
  const size_t node = nodes_.size();
  nodes_.push_back({first, last, 0});
  boxes_.resize(boxes_.size() + 2 * dims_);
  double *low = &boxes_[2 * dims_ * node], *high = low + dims_;
  size_t widest = 0;
  for (size_t d = 0; d < dims_; ++d) {
    low[d] = high[d] = points[number_[first] * dims_ + d];
    for (uint32_t i = first + 1; i < last; ++i) {
      const double x = points[number_[i] * dims_ + d];
      low[d] = std::min(low[d], x);
      high[d] = std::max(high[d], x);
    }
    if (high[d] - low[d] > high[widest] - low[widest]) widest = d;
  }
  if (last - first <= kLeaf) return;
  const uint32_t middle = first + (last - first) / 2;
  std::nth_element(
      number_.begin() + first, number_.begin() + middle, number_.begin() + last,
      [&](uint32_t a, uint32_t b) { return points[a * dims_ + widest] < points[b * dims_ + widest]; });
  split(points, first, middle);
  nodes_[node].right = static_cast<uint32_t>(nodes_.size());
  split(points, middle, last);
}

// Not above the distance to any point in the box, rounding included: each term is a difference, a square and
// a sum in the same order as for the point, of numbers that are not above the point's.
double Neighbours::box_distance(size_t node, const double* point) const {
  const double *low = &boxes_[2 * dims_ * node], *high = low + dims_;
  double sum = 0;
  for (size_t d = 0; d < dims_; ++d) {
    const double gap = std::max(std::max(low[d] - point[d], point[d] - high[d]), 0.0);
    sum += gap * gap;
  }
  return sum;
}

void Neighbours::scan(const Node& leaf, const double* point, uint32_t self, size_t most,
                      std::vector<uint32_t>& found) {
  const size_t total = number_.size(), count = leaf.last - leaf.first;
  const double* first = coordinates_.data() + leaf.first;
  double distance[kLeaf];
  distances(first, total, count, dims_, point, distance);
  const uint32_t* numbers = number_.data() + leaf.first;
  if (most == kNoLimit) {
    for (size_t i = 0; i < count; ++i)
      if (distance[i] <= bound_.distance && numbers[i] != self) found.push_back(numbers[i]);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    // Written first and counted then: whether it is near can't be predicted.
    const Candidate candidate{distance[i], numbers[i]};
    nearest_[held_] = candidate;
    held_ += static_cast<size_t>(candidate < bound_) & static_cast<size_t>(candidate.number != self);
  }
  if (held_ > most) {
    const auto last = nearest_.begin() + static_cast<ptrdiff_t>(most) - 1;
    std::nth_element(nearest_.begin(), last, nearest_.begin() + static_cast<ptrdiff_t>(held_));
    bound_ = *last;
    held_ = most;
  }
}

void Neighbours::visit(size_t node, double distance, const double* point, uint32_t self, size_t most,
                       std::vector<uint32_t>& found) {
  // At the same distance there may be a lower number: only what is farther is left out.
  if (distance > bound_.distance) return;
  const Node& here = nodes_[node];
  if (!here.right) return scan(here, point, self, most, found);
  size_t near = node + 1, far = here.right;
  double near_distance = box_distance(near, point), far_distance = box_distance(far, point);
  if (far_distance < near_distance) {
    std::swap(near, far);
    std::swap(near_distance, far_distance);
  }
  visit(near, near_distance, point, self, most, found);
  visit(far, far_distance, point, self, most, found);
}

// Points are at the places of their numbers: in their order, ties go to the lower number.
void Neighbours::search_all(uint32_t self, size_t most, double radius_squared, std::vector<uint32_t>& found) {
  const size_t count = number_.size();
  distance_.resize(count);
  distances(coordinates_.data(), count, count, dims_, point_.data(), distance_.data());
  double bound = radius_squared;
  size_t ties = count;  // at the bound, that are near enough
  if (most != kNoLimit) {
    selected_ = distance_;
    selected_[self] = std::numeric_limits<double>::infinity();
    const auto last = selected_.begin() + static_cast<ptrdiff_t>(most) - 1;
    std::nth_element(selected_.begin(), last, selected_.end());
    if (*last <= bound) {
      bound = *last;
      const auto nearer = std::count_if(selected_.begin(), last, [=](double x) { return x < bound; });
      ties = most - static_cast<size_t>(nearer);
    }
  }
  const size_t before = found.size();
  found.resize(before + count);
  uint32_t* to = found.data() + before;
  for (uint32_t i = 0; i < count; ++i) {
    const bool tied = distance_[i] == bound && i != self && ties > 0;
    ties -= tied;
    *to = i;
    to += (distance_[i] < bound && i != self) || tied;
  }
  found.resize(static_cast<size_t>(to - found.data()));
}

void Neighbours::search(size_t i, size_t most, double radius_squared, std::vector<uint32_t>& found) {
  const size_t total = number_.size();
  most = most < total ? most : kNoLimit;
  if (most == 0) return;
  if (most == kNoLimit && radius_squared == std::numeric_limits<double>::infinity()) {
    for (uint32_t other = 0; other < total; ++other)
      if (other != i) found.push_back(other);
    return;
  }
  point_.resize(dims_);
  for (size_t d = 0; d < dims_; ++d) point_[d] = coordinates_[d * total + place_[i]];
  if (nodes_.empty()) return search_all(static_cast<uint32_t>(i), most, radius_squared, found);
  bound_ = {radius_squared, std::numeric_limits<uint32_t>::max()};
  held_ = 0;
  if (most != kNoLimit && nearest_.size() < most + kLeaf) nearest_.resize(most + kLeaf);
  visit(0, 0.0, point_.data(), static_cast<uint32_t>(i), most, found);
  for (size_t j = 0; j < held_; ++j) found.push_back(nearest_[j].number);
}

void add_edges(Neighbours& neighbours, const double* points, size_t first, size_t count, size_t dims,
               size_t most, double radius_squared, bool loop, Edges& edges) {
  if (!count || !most) return;
  neighbours.build(points, count, dims);
  std::vector<uint32_t> found;
  std::vector<size_t> begin(count), end(count);
  for (size_t place = 0; place < count; ++place) {
    const uint32_t i = neighbours.at(place);
    begin[i] = found.size();
    if (loop) found.push_back(i);
    neighbours.search(i, loop && most != kNoLimit ? most - 1 : most, radius_squared, found);
    end[i] = found.size();
    std::sort(found.begin() + static_cast<ptrdiff_t>(begin[i]), found.end());
  }
  edges.source.reserve(edges.source.size() + found.size());
  edges.target.reserve(edges.target.size() + found.size());
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = begin[i]; j < end[i]; ++j) {
      edges.source.push_back(static_cast<uint32_t>(first) + found[j]);
      edges.target.push_back(static_cast<uint32_t>(first + i));
    }
  }
}

}  // namespace hepfeed
