// Operations on lists of rows; see kernels/row_lists.cuh, fold_lists.cuh, row_sum.cuh and row_max.cuh.
//
// Matrices are (rows, channels) in C order.  All addresses are of device memory that the caller owns; work is
// queued on `stream`.  Lists that are broken give results of no use, but nothing is read or written out of
// bounds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/float_type.h"
#include "launch.h"

namespace hepfeed::device {

// List o has the rows columns[starts[o]] .. columns[starts[o + 1] - 1].
struct ListArrays {
  const int64_t* starts;   // (count + 1)
  const int32_t* columns;  // (entries)
  int64_t count, entries;
};

// Adds to *found, which is 0 before: 1 where a target is none of the rows, 2 where a source is none; 4 where
// targets fall anywhere, 8 where sources do.
void look_at_pairs(const int32_t* targets, const int32_t* sources, int64_t pairs, int64_t target_rows,
                   int64_t source_rows, int* found, Stream stream);

// starts (lists + 1): for each o how many of the sorted rows are below it.
void find_starts(const int32_t* sorted, int64_t pairs, int64_t lists, int64_t* starts, Stream stream);
void find_starts(const uint64_t* sorted, int64_t pairs, int64_t lists, int64_t* starts, Stream stream);

// Bytes of work space for row_sum() and row_put(), and for row_max(); 0 where none is used.
size_t row_sum_bytes(FloatType type, int64_t channels, int64_t entries);
size_t row_max_bytes(FloatType type, int64_t channels, int64_t entries);

// out (lists, channels): sums of factors[places[p]] * in[columns[p]] over the entries of each list; `factors`
// may be null.  They are float32, or float64 for float64.
void row_sum(FloatType type, const void* in, int64_t in_rows, int64_t channels, const ListArrays& lists,
             const void* factors, const int32_t* places, void* out, void* work, Stream stream);

// out[places[p]] = left[o] . right[columns[p]] for the entries p of each list o, float32, or float64 for
// float64.
void row_dot(FloatType type, const void* left, const void* right, int64_t right_rows, int64_t channels,
             const ListArrays& lists, const int32_t* places, void* out, Stream stream);

// out and argmax (lists, channels): the largest numbers, NaN above all, and the first row that has each; 0
// and -1 for an empty list.
void row_max(FloatType type, const void* in, int64_t in_rows, int64_t channels, const ListArrays& lists,
             void* out, int32_t* argmax, void* work, Stream stream);

// out (out_rows, channels): in[argmax[o, c], c], 0 where that is no row.
void row_pick(FloatType type, const void* in, int64_t in_rows, int64_t channels, const int32_t* argmax,
              int64_t out_rows, void* out, Stream stream);

// out (lists, channels): for each row i of it, the sum of in[o, c] over the rows o of list i whose argmax[o,
// c] is i.  in and argmax are (in_rows, channels).
void row_put(FloatType type, const void* in, const int32_t* argmax, int64_t in_rows, int64_t channels,
             const ListArrays& back, void* out, void* work, Stream stream);

}  // namespace hepfeed::device
