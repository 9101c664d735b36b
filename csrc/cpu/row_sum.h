// Sums of the rows of a matrix that lists name, and products of rows: each the gradient of the other.
//
// Every row of an output belongs to one thread, or its pieces are added in their order, so results are the
// same bits for any number of threads.  T is float, double or bfloat16 (sums are float32 then, and outputs
// rounded once).  Arrays are in C order and may not overlap.  Lists are checked as they are used: these
// functions throw std::invalid_argument, and read nothing out of bounds; the output is of no use then.
#pragma once

#include "cpu/bfloat16.h"
#include "cpu/row_lists.h"

namespace hepfeed {

// Entry p of the lists has the coefficient values[places[p]]; all are 1 where `values` is null.
template <class T>
struct Coefficients {
  const Wide<T>* values;
  const int32_t* places;  // (entries), each of them once
};

// out[o] = sum over entries p of list o of coefficient(p) * in[columns[p]].
// in (in_rows, channels), out (lists.count, channels).
template <class T>
void row_sum(const T* in, size_t in_rows, size_t channels, const RowLists& lists,
             const Coefficients<T>& coefficients, T* out, int threads);

// out[places[p]] = left[o] . right[columns[p]] for the entries p of each list o.
// left (lists.count, channels), right (right_rows, channels), out (entries).
template <class T>
void row_dot(const T* left, const T* right, size_t right_rows, size_t channels, const RowLists& lists,
             const int32_t* places, Wide<T>* out, int threads);

}  // namespace hepfeed
