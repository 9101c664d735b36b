// Largest numbers of the rows of a matrix that lists name; which rows they are of, and what goes back to
// those.
//
// Every row of an output belongs to one thread, or its pieces are compared in their order, so results are the
// same bits for any number of threads.  T is float, double or bfloat16.  Arrays are in C order and may not
// overlap.  Lists are checked as they are used: these functions throw std::invalid_argument, and read nothing
// out of bounds; the output is of no use then.
#pragma once

#include "cpu/bfloat16.h"
#include "cpu/row_lists.h"

namespace hepfeed {

// out[o, c] = max over entries p of list o of in[columns[p], c], and argmax[o, c] = the first of the rows
// that have it.  NaN is larger than all numbers, and of several the last counts, as in torch's pools.  An
// empty list has 0 and row -1.  in (in_rows, channels), out and argmax (lists.count, channels).
template <class T>
void row_max(const T* in, size_t in_rows, size_t channels, const RowLists& lists, T* out, int32_t* argmax,
             int threads);

// out[o, c] = in[argmax[o, c], c], and 0 where that is -1.  in (in_rows, channels), argmax and out (rows,
// channels).
template <class T>
void row_pick(const T* in, size_t in_rows, size_t channels, const int32_t* argmax, size_t rows, T* out,
              int threads);

// out[i, c] = sum over entries p of list i with argmax[columns[p], c] == i of in[columns[p], c]: what
// row_pick took goes back, where `back` has the lists of row_max with rows of input and output swapped, no
// row twice in a list.  in and argmax (in_rows, channels), out (back.count, channels).
template <class T>
void row_put(const T* in, const int32_t* argmax, size_t in_rows, size_t channels, const RowLists& back,
             T* out, int threads);

}  // namespace hepfeed
