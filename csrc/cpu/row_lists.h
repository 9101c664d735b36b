// Lists of rows: which rows of one matrix belong to each row of another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hepfeed {

// List o has the rows columns[starts[o]] .. columns[starts[o + 1] - 1].  Borrowed.
struct RowLists {
  const int64_t* starts;   // (count + 1)
  const int32_t* columns;  // (entries)
  size_t count, entries;
};

// Entries first .. last - 1, all of one list.
struct Piece {
  size_t list, first, last;
};

// Lists are gone through in blocks of this many, each by one thread.
constexpr size_t kListsOfBlock = 256;

inline size_t list_blocks(const RowLists& lists) { return (lists.count + kListsOfBlock - 1) / kListsOfBlock; }

// A list of more entries than this is gone through in pieces of so many, which may be of several threads.  It
// is part of the definition of a sum: numbers of a piece are added one after another, then the pieces.
constexpr size_t kEntriesOfPiece = 256;

// The pieces of the lists that have more than one, in order.  Throws std::invalid_argument where `starts`
// does not rise from 0 to the number of entries.
std::vector<Piece> long_pieces(const RowLists& lists);

// Throws std::invalid_argument where a column of lists first .. last - 1 is not one of `rows` rows; `starts`
// have passed long_pieces().
void check_columns(const RowLists& lists, size_t first, size_t last, size_t rows);

// The same of the places of their entries, which must be below the number of entries.
void check_places(const RowLists& lists, size_t first, size_t last, const int32_t* places);

// Turns pairs (target, source) into lists of the sources of each target, in the order of the pairs: entry p
// of the lists is pair places[p].  starts (targets + 1), columns (pairs), places (pairs) or null. Throws
// std::invalid_argument where a target or a source is not a row.
void list_rows(const int32_t* target, const int32_t* source, size_t pairs, size_t targets, size_t sources,
               int64_t* starts, int32_t* columns, int32_t* places);

}  // namespace hepfeed
