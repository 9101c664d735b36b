// One HDF5 data set as bytes in a file: where its rows lie and how they are encoded.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "cpu/convert.h"

namespace hepfeed {

// The filters that are undone here, with the numbers that HDF5 gives them.
enum class Filter : int { deflate = 1, shuffle = 2, fletcher32 = 3 };

// Bytes that lie together both in an event and in a slab of chunks.
struct Run {
  uint32_t event_byte;  // within the event
  uint32_t slab_byte;   // within the slab, for the first event of the chunks
  uint32_t bytes;
};

// Runs that lie together in the event.
struct Span {
  uint32_t event_byte;
  uint32_t bytes;
  std::vector<Run> runs;
};

// A row is one event: shape[1:] items.  `chunk` is empty for contiguous storage, which begins at `offset`.
// The chunk tables are in C order of the chunk grid; an offset of -1 is a chunk that was never written, whose
// items have the value `fill`.
class Dataset {
 public:
  static constexpr size_t kMaxFilters = 8;

  std::vector<int64_t> shape;
  std::vector<int64_t> chunk;
  size_t item = 0;  // bytes of a stored item
  Type type = Type::opaque;
  Type out_type = Type::opaque;
  size_t out_item = 0;  // bytes of a delivered item
  bool swap = false;    // stored in the other byte order
  int64_t offset = -1;
  std::vector<int> filters;  // in the order in which they were applied on writing
  std::vector<uint8_t> fill;
  std::vector<int64_t> chunk_offset;
  std::vector<int64_t> chunk_size;
  std::vector<uint32_t> chunk_mask;  // bit i: filter i was left out for this chunk

  // Held by whoever reads: what follows is made and changed while events are read.
  std::mutex in_use;
  std::atomic<int> inflater{-1};  // index of the library that was found fastest; -1 while they are tried
  int trials = 0;                 // chunks on which all were tried
  std::vector<int64_t> trial_ns;  // time of each library on them

  // Derived by prepare().  A slab is a run of neighbouring chunks of one block of events: few enough to stay
  // in the processor's cache, and enough that an event is written in long pieces.
  int64_t row_items = 1;       // items of an event
  int64_t chunk_items = 0;     // items of a chunk
  int64_t chunks_per_row = 1;  // chunks that one event touches
  std::vector<int64_t> grid;   // chunks along each axis
  int64_t slab_chunks = 1;     // divides chunks_per_row

  // Checks the sizes of all tables and the order of the filters; throws std::invalid_argument.
  void prepare();

  bool converts() const { return type != out_type; }
  // How each event is put together from slab number `slab` (of chunks_per_row / slab_chunks), in the order of
  // the event's bytes.  Chunks lie in the slab one after another, in delivered items, each whole even where
  // it reaches over the edge of the event.
  const std::vector<Span>& slab_spans(int64_t slab);

  size_t chunk_out_bytes() const { return static_cast<size_t>(chunk_items) * out_item; }
  size_t row_bytes() const { return static_cast<size_t>(row_items) * item; }
  size_t out_row_bytes() const { return static_cast<size_t>(row_items) * out_item; }
  // True where the bytes of an event lie together in the file as they are delivered, but for their byte
  // order.
  bool addressable() const { return chunk.empty() || (filters.empty() && chunks_per_row == 1); }

 private:
  std::vector<std::vector<Span>> spans_;
};

}  // namespace hepfeed
