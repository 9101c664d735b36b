#include "cpu/stream_copy.h"

#include <algorithm>
#include <cstring>

#include "cpu/isa.h"
#if HEPFEED_X86
#include <immintrin.h>
#endif

namespace hepfeed {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kStreamBytes = 4096;  // below, the two partial lines at the ends cost more than is gained
constexpr size_t kAheadBytes = 4096;   // a page: the processor's own fetching ahead ends with it

#if HEPFEED_X86
// `to` is aligned to a line and `bytes` a multiple of one.  With Fetch, line i of `ahead` is fetched while
// line i is copied.
template <bool Fetch>
HEPFEED_TARGET_AVX512 void stream_avx512(uint8_t* to, const uint8_t* from, size_t bytes,
                                         const uint8_t* ahead) {
  for (size_t i = 0; i < bytes; i += kLine) {
    if constexpr (Fetch) __builtin_prefetch(ahead + i, 0, 2);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  }
}

template <bool Fetch>
HEPFEED_TARGET_AVX2 void stream_avx2(uint8_t* to, const uint8_t* from, size_t bytes, const uint8_t* ahead) {
  for (size_t i = 0; i < bytes; i += kLine) {
    if constexpr (Fetch) __builtin_prefetch(ahead + i, 0, 2);
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + 32));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), a);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + 32), b);
  }
}

template <bool Fetch>
void stream(uint8_t* to, const uint8_t* from, size_t bytes, const uint8_t* ahead) {
  if (isa() >= Isa::avx512)
    stream_avx512<Fetch>(to, from, bytes, ahead);
  else
    stream_avx2<Fetch>(to, from, bytes, ahead);
}
#endif

}  // namespace

void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes) {
#if HEPFEED_X86
  if (bytes >= kStreamBytes && isa() >= Isa::avx2) {
    const size_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
    const size_t body = (bytes - head) / kLine * kLine;
    std::memcpy(to, from, head);
    stream<false>(to + head, from + head, body, nullptr);
    std::memcpy(to + head + body, from + head + body, bytes - head - body);
    _mm_sfence();
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

void stream_copy_far(uint8_t* to, const uint8_t* from, size_t bytes, const uint8_t* next, size_t next_bytes) {
#if HEPFEED_X86
  if (bytes >= 2 * kStreamBytes && isa() >= Isa::avx2) {
    const size_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
    const size_t body = (bytes - head) / kLine * kLine, own = body - kAheadBytes;
    std::memcpy(to, from, head);
    to += head, from += head;
    stream<true>(to, from, own, from + kAheadBytes);
    stream<true>(to + own, from + own, kAheadBytes, next);
    std::memcpy(to + body, from + body, bytes - head - body);
    _mm_sfence();
    return;
  }
#endif
  for (size_t i = 0; i < std::min(next_bytes, kAheadBytes); i += kLine) __builtin_prefetch(next + i, 0, 2);
  stream_copy(to, from, bytes);
}

}  // namespace hepfeed
