// Nearest points, within one event, by a k-d tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hepfeed {

// As a number of neighbours: all of them.
constexpr size_t kNoLimit = static_cast<size_t>(-1);

// The points of one event.  The squared distance of points a and b is the sum over axes d, in their order and
// in float64, of (a[d] - b[d])^2; points are compared by (squared distance, number), so that the nearest are
// unique.
//
// The tree (Bentley, Comm. ACM 18 (1975) 509) halves the points at the median of their widest axis down to
// leaves of up to 32, which are searched one by one.  Events of up to 128 points have no tree: all their
// points are searched.
class Neighbours {
 public:
  // Takes `count` points of `dims` finite coordinates, (count, dims) in C order; they are copied.
  void build(const double* points, size_t count, size_t dims);

  // Appends to `found` the `most` nearest of the points within `radius_squared` of point i, without i itself,
  // in no order.  Points at exactly the radius are within.
  void search(size_t i, size_t most, double radius_squared, std::vector<uint32_t>& found);

  // The number of the point at place i of the tree; searching in the order of places finds the tree in the
  // cache.
  uint32_t at(size_t place) const { return number_[place]; }

 private:
  struct Node {
    uint32_t first, last;  // places of its points
    uint32_t right;        // second child (the first one follows the node), or 0 for a leaf
  };
  struct Candidate {
    double distance;
    uint32_t number;
    bool operator<(const Candidate& other) const {
      return distance < other.distance || (distance == other.distance && number < other.number);
    }
  };

  void search_all(uint32_t self, size_t most, double radius_squared, std::vector<uint32_t>& found);
  void split(const double* points, uint32_t first, uint32_t last);
  double box_distance(size_t node, const double* point) const;
  void visit(size_t node, double distance, const double* point, uint32_t self, size_t most,
             std::vector<uint32_t>& found);
  void scan(const Node& leaf, const double* point, uint32_t self, size_t most, std::vector<uint32_t>& found);

  size_t dims_ = 0;
  std::vector<uint32_t> number_;     // (count) number of the point at each place
  std::vector<uint32_t> place_;      // (count) place of each point
  std::vector<double> coordinates_;  // (dims, count) by place
  std::vector<Node> nodes_;
  std::vector<double> boxes_;  // (nodes, 2, dims): least and largest coordinates
  std::vector<Candidate>
      nearest_;            // (most + a leaf) the nearest so far, and those of a leaf that may replace them
  size_t held_ = 0;        // how many
  Candidate bound_{0, 0};  // candidates below it are near enough
  std::vector<double> point_;
  std::vector<double> distance_, selected_;  // (count), of events without a tree
};

// Edges from the neighbours of each point, sorted by (target, source).
struct Edges {
  std::vector<uint32_t> source, target;  // rows of the batch
};

// Appends the edges of one event, whose points are rows first .. first + count - 1 of the batch: from the
// `most` nearest within the radius to each point.  With `loop` each point is a neighbour of itself, the first
// of the `most`.
void add_edges(Neighbours& neighbours, const double* points, size_t first, size_t count, size_t dims,
               size_t most, double radius_squared, bool loop, Edges& edges);

}  // namespace hepfeed
