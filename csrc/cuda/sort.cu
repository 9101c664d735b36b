#include <cub/device/device_radix_sort.cuh>
#include <stdexcept>
#include <string>

#include "cuda/sort.h"

namespace hepfeed::device {
namespace {

cudaError_t radix_sort(void* work, size_t& bytes, const uint64_t* keys_in, uint64_t* keys_out,
                       const int32_t* values_in, int32_t* values_out, int64_t count, int end_bit,
                       Stream stream) {
  return cub::DeviceRadixSort::SortPairs(work, bytes, keys_in, keys_out, values_in, values_out, count, 0,
                                         end_bit, static_cast<cudaStream_t>(stream));
}

void check(cudaError_t status) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("sort_pairs: ") + cudaGetErrorString(status));
}

}  // namespace

size_t sort_pairs_bytes(int64_t count, int end_bit) {
  size_t bytes = 0;
  check(radix_sort(nullptr, bytes, nullptr, nullptr, nullptr, nullptr, count, end_bit, nullptr));
  return bytes;
}

void sort_pairs(void* work, size_t bytes, const uint64_t* keys_in, uint64_t* keys_out,
                const int32_t* values_in, int32_t* values_out, int64_t count, int end_bit, Stream stream) {
  if (count == 0) return;
  check(radix_sort(work, bytes, keys_in, keys_out, values_in, values_out, count, end_bit, stream));
}

}  // namespace hepfeed::device
