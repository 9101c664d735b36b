// Lists of rows made one row each, by any operation that can be done in parts: sums, maxima.
//
// Memory is the floor: the rows of the entries, entries x channels x bytes, and the results.  A list is of
// one group of threads, each with a piece of 16 bytes.  Long lists, as of a global pool, would keep one group
// busy and let the others wait.  So entries are divided into chunks, the long lists among them folded chunk
// by chunk, and the parts joined by a second kernel.  Which thread takes what, and in which order, depends on
// the sizes alone, and parts are joined in the order of their entries.
//
// A Fold has
//   Part, Total              what is known of a few entries, and of many; for one piece of a row
//   void take(Part& part, int64_t list, int64_t first, int64_t last, int piece)    adds entries of a list
//   void join(Total& total, const Part or Total& later)            adds entries that come behind
//   void put(const Part or Total& known, int64_t list, int piece)  writes the result
//   Pieces pieces            of rows
// and a Part or a Total of no entries is {}, all zero.
#pragma once

#include <cstdint>

#include "kernels/row_lists.cuh"
#include "kernels/row_pieces.cuh"
#include "port.h"

namespace hepfeed::device {

constexpr int kFoldThreads = 256;

// A list of more entries is long, and a chunk has two of them at most.  A part is 16 to 64 bytes, which are
// written and read once, and made of 16 bytes for each entry.
constexpr int kChunkEntries = 128;

// Pieces of a row whose parts a block joins, so that it has eight groups or more.
constexpr int kJoinPieces = 32;

// Where the threads of a block stand: in groups, side by side along a row.
struct FoldGroups {
  int width, count, group, place;

  __device__ explicit FoldGroups(int most)
      : width(most),
        count(kFoldThreads / most),
        group(static_cast<int>(threadIdx.x) / most),
        place(static_cast<int>(threadIdx.x) % most) {}
};

// Joins what the groups of a block know, neighbours first, so that the order of entries is kept.  All threads
// call it.
template <class Fold>
__device__ void join_groups(const Fold& fold, const FoldGroups& groups, typename Fold::Total* known) {
  for (int step = 1; step < groups.count; step *= 2) {
    __syncthreads();
    if (groups.group % (2 * step) == 0 && groups.group + step < groups.count)
      fold.join(known[threadIdx.x], known[threadIdx.x + step * groups.width]);
  }
}

template <class Fold>
__device__ void fold_short_lists(const Fold& fold, const RowLists& lists, int64_t block) {
  const FoldGroups groups(fold.pieces.count < kFoldThreads ? fold.pieces.count : kFoldThreads);
  const int64_t list = block * groups.count + groups.group;
  if (groups.group >= groups.count || list >= lists.count) return;
  const int64_t first = lists.first(list), last = lists.last(list);
  if (last - first > kChunkEntries) return;
  for (int piece = groups.place; piece < fold.pieces.count; piece += groups.width) {
    typename Fold::Part part{};
    fold.take(part, list, first, last, piece);
    fold.put(part, list, piece);
  }
}

// Folds entries first .. last - 1 of a list by all threads of a block.
template <class Fold>
__device__ void fold_chunk(const Fold& fold, int64_t list, int64_t first, int64_t last,
                           typename Fold::Total* known, typename Fold::Total* parts) {
  const FoldGroups groups(fold.pieces.count < kFoldThreads ? fold.pieces.count : kFoldThreads);
  const int64_t share = (last - first + groups.count - 1) / groups.count;
  const int64_t from = first + groups.group * share, to = from + share < last ? from + share : last;
  for (int tile = 0; tile < fold.pieces.count; tile += groups.width) {
    const int piece = tile + groups.place;
    typename Fold::Part part{};
    if (groups.group < groups.count && piece < fold.pieces.count) fold.take(part, list, from, to, piece);
    known[threadIdx.x] = {};
    fold.join(known[threadIdx.x], part);
    join_groups(fold, groups, known);
    if (groups.group == 0 && piece < fold.pieces.count) parts[piece] = known[threadIdx.x];
  }
}

// Writes the results of lists that are not long.  Of the others it makes parts (chunks, 2, pieces of a row):
// of the long list that a chunk begins in, and of the one that begins behind the start of the chunk; `opens`
// says which long list begins in a chunk, or -1.
//
// The first `chunks` blocks are those of chunks, of which there are none where no list can be long; the
// others have kFoldThreads / pieces lists each, or one.
template <class Fold>
__global__ void __launch_bounds__(kFoldThreads, 2)
    fold_lists(Fold fold, RowLists lists, int64_t chunks, typename Fold::Total* parts, int64_t* opens) {
  HEPFEED_SHARED(typename Fold::Total, known, [kFoldThreads]);
  const int64_t chunk = blockIdx.x;
  if (chunk >= chunks) return fold_short_lists(fold, lists, chunk - chunks);
  const int64_t begin = chunk * kChunkEntries;
  const int64_t end = begin + kChunkEntries < lists.entries ? begin + kChunkEntries : lists.entries;
  typename Fold::Total* const parts_here = parts + chunk * 2 * fold.pieces.count;
  int64_t opened = -1;
#pragma unroll 1  // or else all of it is there twice
  for (int part = 0; part < 2; ++part) {
    const int64_t list = block_list_of_entry(lists, part == 0 ? begin : end - 1);
    const int64_t first = lists.first(list), last = lists.last(list);
    if (part == 1 && first <= begin) break;
    if (last - first > kChunkEntries) {
      fold_chunk(fold, list, part == 0 ? begin : first, last < end ? last : end, known,
                 parts_here + part * fold.pieces.count);
      if (part == 1 || first == begin) opened = list;
      __syncthreads();  // all have read what is left in shared memory
    }
    if (last >= end) break;
  }
  if (threadIdx.x == 0) opens[chunk] = opened;
}

// Joins the parts of the long list that begins in each chunk, for kJoinPieces pieces a block.
template <class Fold>
__global__ void __launch_bounds__(kFoldThreads)
    join_parts(Fold fold, RowLists lists, const typename Fold::Total* parts, const int64_t* opens) {
  HEPFEED_SHARED(typename Fold::Total, known, [kFoldThreads]);
  const int64_t chunk = blockIdx.x, list = opens[chunk];
  if (list < 0) return;
  const FoldGroups groups(fold.pieces.count < kJoinPieces ? fold.pieces.count : kJoinPieces);
  const int piece = static_cast<int>(blockIdx.y) * kJoinPieces + groups.place;
  const int64_t first = lists.first(list), last_chunk = (lists.last(list) - 1) / kChunkEntries;
  const int64_t share = (last_chunk - chunk + groups.count) / groups.count;
  const int64_t from = chunk + groups.group * share, until = from + share - 1;
  const int64_t to = until < last_chunk ? until : last_chunk;
  typename Fold::Total total{};
  if (groups.group < groups.count && piece < fold.pieces.count) {
#pragma unroll 4
    for (int64_t at = from; at <= to; ++at) {
      const bool behind = at == chunk && first > chunk * kChunkEntries;
      fold.join(total, parts[(2 * at + (behind ? 1 : 0)) * fold.pieces.count + piece]);
    }
  }
  known[threadIdx.x] = total;
  join_groups(fold, groups, known);
  if (groups.group == 0 && piece < fold.pieces.count) fold.put(known[threadIdx.x], list, piece);
}

}  // namespace hepfeed::device
