#include "cpu/column_sum.h"

#include <algorithm>
#include <vector>

#include "cpu/bfloat16.h"
#include "cpu/clones.h"
#include "cpu/threads.h"

namespace hepfeed {
namespace {

// Rows whose sums are one term of the result.
constexpr size_t kBlockRows = 1024;

}  // namespace

template <class T>
void column_sum(const T* values, size_t rows, size_t columns, T* out, int threads) {
  const size_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  std::vector<double> sums(std::max<size_t>(blocks, 1) * columns);
  double* const partial = sums.data();
  for_blocks(blocks, threads, [=](size_t block) {
    double* sum = partial + block * columns;
    const size_t first = block * kBlockRows, last = std::min(rows, first + kBlockRows);
    for_isa([=]() HEPFEED_INLINE {
      for (size_t row = first; row < last; ++row) {
        const T* value = values + row * columns;
        for (size_t c = 0; c < columns; ++c) sum[c] += static_cast<double>(widen(value[c]));
      }
    });
  });
  for (size_t block = 1; block < blocks; ++block)
    for (size_t c = 0; c < columns; ++c) partial[c] += partial[block * columns + c];
  for (size_t c = 0; c < columns; ++c) out[c] = narrow<T>(static_cast<Wide<T>>(partial[c]));
}

template void column_sum(const float*, size_t, size_t, float*, int);
template void column_sum(const double*, size_t, size_t, double*, int);
template void column_sum(const bfloat16*, size_t, size_t, bfloat16*, int);

}  // namespace hepfeed
