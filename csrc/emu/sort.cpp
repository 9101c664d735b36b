// The sort of cuda/sort.cu without a device: only the standard library, but the same contract and refusals.
#include "cuda/sort.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace hepfeed::device {

size_t sort_pairs_bytes(int64_t count, int end_bit) {
  if (count < 0 || end_bit < 1 || end_bit > 64) throw std::runtime_error("sort_pairs: invalid argument");
  return static_cast<size_t>(count) * sizeof(int64_t) + 1;  // as on a device, never 0
}

void sort_pairs(void* work, size_t bytes, const uint64_t* keys_in, uint64_t* keys_out,
                const int32_t* values_in, int32_t* values_out, int64_t count, int end_bit, Stream) {
  if (bytes < sort_pairs_bytes(count, end_bit))
    throw std::runtime_error("sort_pairs: the work space is too small");
  if (count == 0) return;
  std::memset(work, 0xff, bytes);  // nobody may count on what is there
  const uint64_t mask = end_bit == 64 ? ~uint64_t{0} : (uint64_t{1} << end_bit) - 1;
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t left, int64_t right) {
    return (keys_in[left] & mask) < (keys_in[right] & mask);
  });
  for (int64_t i = 0; i < count; ++i) {
    keys_out[i] = keys_in[order[static_cast<size_t>(i)]];
    values_out[i] = values_in[order[static_cast<size_t>(i)]];
  }
}

}  // namespace hepfeed::device
