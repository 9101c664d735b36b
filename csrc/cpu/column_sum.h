// Sums over the rows of a matrix: the gradient of a bias.
#pragma once

#include <cstddef>

namespace hepfeed {

// out[c] = sum over rows of values[row, c], in float64: the rows of a block one by one, then the blocks in
// order, which depends on the number of rows alone, so that results are the same bits for any number of
// threads.  values (rows, columns) in C order, out (columns).  T is float, double or bfloat16, for which a
// sum is rounded to float32 before.
template <class T>
void column_sum(const T* values, size_t rows, size_t columns, T* out, int threads);

}  // namespace hepfeed
