// Sets of sites: rows of (event, coordinates) in a batch of grids, and the order of their places.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hepfeed {

// Rows (count, 1 + dims): the event, then the coordinates.  Borrowed.
struct SiteRows {
  const int32_t* indices;
  size_t count, dims;
};

// Numbers places (event, coordinates) in C order.
class Numbering {
 public:
  // Places of `events` grids of `shape`, numbered as if each axis had `widths` of cells, none less than the
  // shape; throws std::length_error where the numbers need more than 62 bits.
  Numbering(size_t events, std::vector<int64_t> shape, const std::vector<int64_t>& widths);

  // Numbers without gaps.
  Numbering(size_t events, const std::vector<int64_t>& shape) : Numbering(events, shape, shape) {}

  size_t dims() const { return shape_.size(); }
  size_t events() const { return events_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t step(size_t axis) const { return step_[axis]; }  // difference of the numbers of two neighbours
  int64_t event_step() const { return event_step_; }
  uint64_t places() const { return static_cast<uint64_t>(event_step_) * events_; }

 private:
  size_t events_;
  std::vector<int64_t> shape_, step_;
  int64_t event_step_;
};

// What is wrong with rows of sites: the first row that is outside of the grids, and the first one that is not
// above the row before it; or the number of rows.
struct SiteFaults {
  size_t outside, unsorted;
};

// number[n] = the number of site order[n], or of site n without an order; of use where no site is outside.
// Rows of the order are checked too: one that is no row counts as outside.
SiteFaults number_sites(const SiteRows& sites, const int32_t* order, const Numbering& numbering,
                        int64_t* number, int threads);

// Rows by the number of their sites, rows of equal sites in their order.
//
//   number (count) of each site
//   order  (count) out
//
// Returns the first place of the order whose site is that of the place before, or `count`.
size_t sort_sites(const int64_t* number, size_t count, const Numbering& numbering, int32_t* order,
                  int threads);

// Numbers distinct sites from 0.  `order` is as from sort_sites.
//
//   first  (count) out: the first row of each distinct site
//   row_of (count) out: the distinct site of each row
//
// Returns how many there are.
size_t unique_sites(const int64_t* number, const int32_t* order, size_t count, int32_t* first,
                    int32_t* row_of);

// found[q] = order[n], or n without an order, where number[n] is that of query q; or -1, as for queries
// outside of the grids.  Numbers rise strictly.
void find_sites(const int64_t* number, const int32_t* order, size_t count, const SiteRows& queries,
                const Numbering& numbering, int32_t* found, int threads);

}  // namespace hepfeed
