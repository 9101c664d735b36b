#include "cpu/stream_copy.h"

#include <cstring>

#include "cpu/isa.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kStreamBytes = 4096;  // below, the two partial lines at the ends cost more than is gained

#if HEPFEED_X86
// `to` is aligned to a line and `bytes` a multiple of one.
HEPFEED_TARGET_AVX512 void stream_avx512(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  _mm_sfence();
}

HEPFEED_TARGET_AVX2 void stream_avx2(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + 32));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), a);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + 32), b);
  }
  _mm_sfence();
}
#endif

}  // namespace

void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes) {
#if HEPFEED_X86
  if (bytes >= kStreamBytes && isa() >= Isa::avx2) {
    const size_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
    const size_t body = (bytes - head) / kLine * kLine;
    std::memcpy(to, from, head);
    if (isa() == Isa::avx512)
      stream_avx512(to + head, from + head, body);
    else
      stream_avx2(to + head, from + head, body);
    std::memcpy(to + head + body, from + head + body, bytes - head - body);
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

}  // namespace hepfeed
