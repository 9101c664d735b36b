#include "cpu/chunk_reader.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "cpu/fletcher32.h"
#include "cpu/stream_copy.h"
#include "cpu/unshuffle.h"

namespace hepfeed {
namespace {

constexpr size_t kSpanBytes = size_t{1}
                              << 18;  // most bytes of one pread that serves several events or chunks
constexpr int64_t kGapBytes = 4096;   // bytes between two chunks that are cheaper to read than to skip
constexpr int kTrials = 8;            // chunks on which every library is tried; less for large chunks
constexpr size_t kTrialBytes = size_t{4} << 20;  // so many bytes are enough
constexpr size_t kChecksumBytes = 4;
constexpr size_t kLongSpanBytes = 4096;           // where stream_copy begins to go past the cache
constexpr size_t kDirectBytes = size_t{1} << 20;  // larger events are read straight to their place

using Clock = std::chrono::steady_clock;

class Stopwatch {
 public:
  // Nanoseconds since construction or the last lap.
  int64_t lap() {
    const auto now = Clock::now();
    const auto spent = std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_).count();
    last_ = now;
    return spent;
  }

 private:
  Clock::time_point last_ = Clock::now();
};

uint8_t* grown(std::vector<uint8_t>& buffer, size_t bytes) {
  if (buffer.size() < bytes) buffer.resize(bytes);
  return buffer.data();
}

// memcpy for the short runs of a chunk that covers a corner of an event: two overlapping moves, no loop.
inline void copy_run(uint8_t* to, const uint8_t* from, size_t bytes) {
  if (bytes >= 16 && bytes <= 32) {
    uint64_t a[2], b[2];
    std::memcpy(a, from, 16);
    std::memcpy(b, from + bytes - 16, 16);
    std::memcpy(to, a, 16);
    std::memcpy(to + bytes - 16, b, 16);
  } else if (bytes >= 8 && bytes < 16) {
    uint64_t a, b;
    std::memcpy(&a, from, 8);
    std::memcpy(&b, from + bytes - 8, 8);
    std::memcpy(to, &a, 8);
    std::memcpy(to + bytes - 8, &b, 8);
  } else {
    std::memcpy(to, from, bytes);
  }
}

}  // namespace

ChunkReader::ChunkReader() : inflaters_(make_inflaters()) {}

std::vector<FailedRow> ChunkReader::read(Dataset& dataset, int file, const int64_t* rows,
                                         uint8_t* const* destination, const int64_t* lengths, size_t count,
                                         ReadCost& cost) {
  // Always in this order, and nobody who holds them waits for anything else of this process.
  const std::lock_guard<std::mutex> mine(in_use_), its(dataset.in_use);
  failed_.clear();
  has_failed_.assign(count, 0);
  requests_.clear();
  requests_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const int64_t length = lengths ? lengths[i] : 1;
    if (length == 0) continue;
    if (length < 0 || rows[i] < 0 || rows[i] > dataset.shape[0] - length)
      throw std::out_of_range("an event beyond the end of its file");
    add_run(dataset, rows[i], length, destination[i], static_cast<int64_t>(i));
  }
  const auto by_row = [](const Request& a, const Request& b) { return a.row < b.row; };
  if (!std::is_sorted(requests_.begin(), requests_.end(), by_row))
    std::sort(requests_.begin(), requests_.end(), by_row);
  if (dataset.row_items == 0) return {};
  if (dataset.addressable())
    read_addressable(dataset, file, cost);
  else
    read_chunked(dataset, file, cost);
  for (const auto& failure : failed_) {
    const auto length = static_cast<size_t>(lengths ? lengths[failure.request] : 1);
    std::memset(destination[failure.request], 0, length * dataset.out_row_bytes());
  }
  return failed_;
}

void ChunkReader::add_run(const Dataset& dataset, int64_t row, int64_t length, uint8_t* destination,
                          int64_t index) {
  const auto row_bytes = static_cast<int64_t>(dataset.out_row_bytes());
  while (length > 0) {
    const int64_t in_block = dataset.chunk.empty() ? length : dataset.chunk[0] - row % dataset.chunk[0];
    const int64_t some = std::min(length, in_block);
    requests_.push_back({row, some, destination, index});
    row += some;
    length -= some;
    destination += some * row_bytes;
  }
}

void ChunkReader::fail(const Request* first, const Request* last, Fault fault, int64_t offset,
                       int error_number) {
  for (const Request* request = first; request != last; ++request) {
    if (has_failed_[request->index]) continue;
    has_failed_[request->index] = 1;
    failed_.push_back({request->index, fault, offset, error_number});
  }
}

bool ChunkReader::pread_all(int file, uint8_t* to, size_t bytes, int64_t offset, int& error_number) const {
  error_number = 0;
  while (bytes > 0) {
    const ssize_t got = ::pread(file, to, bytes, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      error_number = got < 0 ? errno : 0;
      return false;
    }
    to += got;
    offset += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

void ChunkReader::deliver(const Dataset& dataset, uint8_t* items, uint8_t* out, size_t count) const {
  if (dataset.swap) byteswap(items, count, dataset.item);
  if (dataset.converts())
    convert(items, dataset.type, out, dataset.out_type, count);
  else if (items != out)
    stream_copy(out, items, count * dataset.item);
}

// ---- events whose bytes lie together in the file
// ----------------------------------------------------------------

void ChunkReader::read_addressable(const Dataset& set, int file, ReadCost& cost) {
  const auto bytes = static_cast<int64_t>(set.row_bytes());
  const bool as_stored = !set.swap && !set.converts();
  const auto offset_of = [&](int64_t row) -> int64_t {
    if (set.chunk.empty()) return set.offset < 0 ? -1 : set.offset + row * bytes;
    const int64_t base = set.chunk_offset[row / set.chunk[0]];
    return base < 0 ? -1 : base + (row % set.chunk[0]) * bytes;
  };
  Stopwatch watch;
  int error_number = 0;
  const Request* const end = requests_.data() + requests_.size();
  for (const Request* first = requests_.data(); first != end;) {
    const int64_t start = offset_of(first->row);
    int64_t size = first->length * bytes;
    if (start < 0) {  // never written
      uint8_t* items = grown(first_, static_cast<size_t>(size));
      const int64_t count = first->length * set.row_items;
      for (int64_t i = 0; i < count; ++i) std::memcpy(items + i * set.item, set.fill.data(), set.item);
      deliver(set, items, first->destination, static_cast<size_t>(count));
      ++first;
      cost.scatter_ns += watch.lap();
      continue;
    }
    if (as_stored && size >= static_cast<int64_t>(kDirectBytes)) {
      if (!pread_all(file, first->destination, size, start, error_number))
        fail(first, first + 1, Fault::io, start, error_number);
      cost.bytes_read += size;
      cost.read_ns += watch.lap();
      ++first;
      continue;
    }
    // Neighbours come with one pread.
    const Request* last = first + 1;
    int64_t stop = start + size;
    while (last != end) {
      const int64_t next = offset_of(last->row);
      const int64_t next_stop = next + last->length * bytes;
      if (next < start || next > stop + kGapBytes || static_cast<size_t>(next_stop - start) > kSpanBytes)
        break;
      stop = std::max(stop, next_stop);
      ++last;
    }
    uint8_t* raw = grown(raw_, stop - start);
    const bool complete = pread_all(file, raw, stop - start, start, error_number);
    cost.bytes_read += stop - start;
    cost.read_ns += watch.lap();
    for (const Request* request = first; request != last; ++request) {
      const int64_t at = offset_of(request->row);
      size = request->length * bytes;
      if (!complete && !pread_all(file, raw + (at - start), size, at, error_number)) {
        fail(request, request + 1, Fault::io, at, error_number);
        continue;
      }
      uint8_t* items = raw + (at - start);
      if (set.swap) {  // the same event may be asked for twice: work on a copy
        uint8_t* copy = grown(first_, size);
        std::memcpy(copy, items, size);
        items = copy;
      }
      deliver(set, items, request->destination, static_cast<size_t>(request->length * set.row_items));
    }
    cost.scatter_ns += watch.lap();
    first = last;
  }
}

// ---- chunks
// ----------------------------------------------------------------------------------------------------

void ChunkReader::read_chunked(Dataset& set, int file, ReadCost& cost) {
  const Request* const end = requests_.data() + requests_.size();
  for (const Request* first = requests_.data(); first != end;) {
    const int64_t block = first->row / set.chunk[0];
    const Request* last = first;
    while (last != end && last->row / set.chunk[0] == block) ++last;
    read_block(set, file, first, last, cost);
    first = last;
  }
}

void ChunkReader::read_block(Dataset& set, int file, const Request* first, const Request* last,
                             ReadCost& cost) {
  const int64_t block = first->row / set.chunk[0] * set.chunks_per_row;
  // One event that is one chunk is decoded in its place.
  if (set.chunk[0] == 1 && set.chunks_per_row == 1 && set.chunk_items == set.row_items && last == first + 1) {
    fill_slab(set, file, block, first->destination, first, last, cost);
    return;
  }
  const size_t slice_bytes =
      set.chunk_out_bytes() / static_cast<size_t>(set.chunk[0]);  // of one event in a chunk
  const size_t row_bytes = set.out_row_bytes();
  const bool whole_rows = set.chunks_per_row == 1 && slice_bytes == row_bytes;
  uint8_t* slab = grown(slab_, set.chunk_out_bytes() * static_cast<size_t>(set.slab_chunks));
  for (int64_t i = 0; i < set.chunks_per_row / set.slab_chunks; ++i) {
    if (!fill_slab(set, file, block + i * set.slab_chunks, slab, first, last, cost)) continue;
    Stopwatch watch;
    const std::vector<Span>& spans = set.slab_spans(i);
    for (const Request* request = first; request != last; ++request) {
      const uint8_t* from = slab + static_cast<size_t>(request->row % set.chunk[0]) * slice_bytes;
      if (whole_rows) {
        stream_copy(request->destination, from, static_cast<size_t>(request->length) * row_bytes);
        continue;
      }
      for (int64_t row = 0; row < request->length; ++row, from += slice_bytes)
        for (const Span& span : spans)
          scatter(span, from, request->destination + static_cast<size_t>(row) * row_bytes + span.event_byte);
    }
    cost.scatter_ns += watch.lap();
  }
}

// Puts a span together in the cache, and writes it as a whole; short ones are written at once.
void ChunkReader::scatter(const Span& span, const uint8_t* from, uint8_t* to) {
  if (span.runs.size() == 1) {
    stream_copy(to, from + span.runs[0].slab_byte, span.bytes);
    return;
  }
  uint8_t* out = span.bytes >= kLongSpanBytes ? grown(first_, span.bytes) : to;
  for (const Run& run : span.runs)
    copy_run(out + (run.event_byte - span.event_byte), from + run.slab_byte, run.bytes);
  if (out != to) stream_copy(to, out, span.bytes);
}

bool ChunkReader::fill_slab(Dataset& set, int file, int64_t first_chunk, uint8_t* slab, const Request* first,
                            const Request* last, ReadCost& cost) {
  Stopwatch watch;
  const auto place_of = [&](int64_t chunk) {
    return slab + static_cast<size_t>(chunk - first_chunk) * set.chunk_out_bytes();
  };
  pieces_.clear();
  for (int64_t chunk = first_chunk; chunk < first_chunk + set.slab_chunks; ++chunk) {
    if (set.chunk_offset[chunk] < 0)
      fill_chunk(set, place_of(chunk));
    else
      pieces_.push_back({chunk, set.chunk_offset[chunk], set.chunk_size[chunk]});
  }
  std::sort(pieces_.begin(), pieces_.end(),
            [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
  for (size_t i = 0; i < pieces_.size();) {  // neighbours come with one pread
    const int64_t start = pieces_[i].offset;
    int64_t stop = start + pieces_[i].size;
    size_t j = i + 1;
    while (j < pieces_.size() && pieces_[j].offset <= stop + kGapBytes &&
           static_cast<size_t>(pieces_[j].offset + pieces_[j].size - start) <= kSpanBytes) {
      stop = std::max(stop, pieces_[j].offset + pieces_[j].size);
      ++j;
    }
    int error_number = 0;
    uint8_t* raw = grown(raw_, stop - start);
    const bool complete = pread_all(file, raw, stop - start, start, error_number);
    cost.bytes_read += stop - start;
    cost.read_ns += watch.lap();
    for (; i < j; ++i) {
      const Piece& piece = pieces_[i];
      uint8_t* at = raw + (piece.offset - start);
      if (!complete && !pread_all(file, at, piece.size, piece.offset, error_number)) {
        fail(first, last, Fault::io, piece.offset, error_number);
        return false;
      }
      Fault fault = Fault::none;
      if (!decode_piece(set, piece, at, place_of(piece.chunk), fault)) {
        fail(first, last, fault, piece.offset, 0);
        return false;
      }
      cost.bytes_inflated += set.chunk_items * static_cast<int64_t>(set.item);
      cost.chunks += 1;
    }
    cost.inflate_ns += watch.lap();
  }
  return true;
}

bool ChunkReader::decode_piece(Dataset& set, const Piece& piece, const uint8_t* raw, uint8_t* out,
                               Fault& fault) {
  const bool as_stored = !set.swap && !set.converts();
  uint8_t* items = decode(set, piece.chunk, raw, piece.size, as_stored ? out : nullptr, fault);
  if (!items) return false;
  deliver(set, items, out, static_cast<size_t>(set.chunk_items));
  return true;
}

uint8_t* ChunkReader::decode(Dataset& set, int64_t chunk, const uint8_t* raw, size_t raw_bytes,
                             uint8_t* direct, Fault& fault) {
  const size_t bytes = static_cast<size_t>(set.chunk_items) * set.item;
  const uint32_t mask = set.chunk_mask[chunk];
  // Bytes before each filter as it was applied; what deflate makes is not known beforehand, and not needed.
  std::array<size_t, Dataset::kMaxFilters> before{};
  size_t size = bytes, moves = 0;
  for (size_t i = 0; i < set.filters.size(); ++i) {
    before[i] = size;
    if (mask >> i & 1) continue;
    if (set.filters[i] == static_cast<int>(Filter::fletcher32)) {
      size += kChecksumBytes;
      if (moves == 0) direct = nullptr;  // the decoded bytes end with the checksum
    } else {
      ++moves;
    }
  }
  const uint8_t* from = raw;
  size_t from_bytes = raw_bytes;
  uint8_t* items = nullptr;
  const auto target = [&](size_t needed) -> uint8_t* {
    if (--moves == 0 && direct) return direct;
    return from == first_.data() ? grown(second_, needed) : grown(first_, needed);
  };
  fault = Fault::inflate;
  for (size_t i = set.filters.size(); i-- > 0;) {
    if (mask >> i & 1) continue;
    switch (static_cast<Filter>(set.filters[i])) {
      case Filter::fletcher32:
        if (!fletcher32_matches(from, from_bytes)) {
          fault = Fault::checksum;
          return nullptr;
        }
        from_bytes -= kChecksumBytes;
        continue;
      case Filter::deflate:
        items = target(before[i]);
        if (!inflate(set, from, from_bytes, items, before[i])) return nullptr;
        break;
      case Filter::shuffle: {
        if (from_bytes != before[i]) return nullptr;
        items = target(before[i]);
        const size_t count = from_bytes / set.item, whole = count * set.item;
        unshuffle(from, items, count, set.item);
        std::memcpy(items + whole, from + whole, from_bytes - whole);
        break;
      }
    }
    from = items;
    from_bytes = before[i];
  }
  if (from_bytes != bytes) return nullptr;
  if (!items) {  // no step moved the bytes
    items = direct ? direct : grown(first_, bytes);
    std::memcpy(items, from, bytes);
  }
  fault = Fault::none;
  return items;
}

// Inflates with the library that is fastest on this data set: all of them are tried on its first chunks.
bool ChunkReader::inflate(Dataset& set, const uint8_t* raw, size_t raw_bytes, uint8_t* out, size_t bytes) {
  const size_t libraries = inflaters_.size();
  if (libraries == 0) throw std::runtime_error("no library that inflates was registered");
  const int fastest = set.inflater;  // found by another reader, it may be one that this one does not know
  if (fastest >= 0 && static_cast<size_t>(fastest) < libraries)
    return inflaters_[static_cast<size_t>(fastest)]->inflate(raw, raw_bytes, out, bytes);
  set.trial_ns.resize(libraries);
  bool good = false;
  for (size_t i = 0; i < libraries; ++i) {
    const size_t turn =
        (i + static_cast<size_t>(set.trials)) % libraries;  // whoever is first warms the cache
    Stopwatch watch;
    good = inflaters_[turn]->inflate(raw, raw_bytes, out, bytes);
    set.trial_ns[turn] += watch.lap();
    if (!good) return false;
  }
  if (++set.trials >= kTrials || static_cast<size_t>(set.trials) * bytes >= kTrialBytes) {
    const auto best = std::min_element(set.trial_ns.begin(), set.trial_ns.end());
    set.inflater = static_cast<int>(best - set.trial_ns.begin());
  }
  return good;
}

// A chunk that was never written holds the fill value.
void ChunkReader::fill_chunk(const Dataset& set, uint8_t* out) {
  const auto count = static_cast<size_t>(set.chunk_items);
  uint8_t* items = grown(first_, count * set.item);
  for (size_t i = 0; i < count; ++i) std::memcpy(items + i * set.item, set.fill.data(), set.item);
  deliver(set, items, out, count);
}

}  // namespace hepfeed
