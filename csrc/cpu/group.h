// Rows of equal cells brought together: what voxelising and merging of sites have in common.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// Sorts the rows of each event by cell and finds the runs of equal cells.
//
//   cell       (rows) cell of each row, 0 .. cells - 1; below 0: the row is left out
//   offsets    (events + 1) rows of each event, in [0, 2^32)
//   order      (rows) out: the rows kept, by (event, cell, row)
//   starts     (rows + 1) out: group g is order[starts[g] .. starts[g + 1])
//   group_cell (rows) out: cell of each group
//   group_offsets (events + 1) out: groups of each event
//
// Returns the number of groups.
size_t group_rows(const int64_t* cell, const int64_t* offsets, size_t events, uint64_t cells, uint32_t* order,
                  int64_t* starts, int64_t* group_cell, int64_t* group_offsets);

// group[order[i]] = number of the group that i lies in, counted within its event; -1 for rows left out.
void group_of_rows(const uint32_t* order, const int64_t* starts, const int64_t* group_offsets, size_t events,
                   size_t rows, int64_t* group);

}  // namespace hepfeed
