// Events read from a file's bytes: pread, check, inflate, unshuffle, swap, convert, scatter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/dataset.h"
#include "cpu/inflate.h"

namespace hepfeed {

// Where the time of read() went, in nanoseconds, and what it moved, in bytes.
struct ReadCost {
  int64_t read_ns = 0, inflate_ns = 0, scatter_ns = 0;
  int64_t bytes_read = 0, bytes_inflated = 0, chunks = 0;
};

enum class Fault { none = 0, io = 1, inflate = 2, checksum = 3 };

// An event that could not be read: the place in the request, and why.
struct FailedRow {
  int64_t request;
  Fault fault;
  int64_t file_offset;
  int error_number;  // errno of a failed pread; 0 where the file ended
};

// Reads events of data sets with buffers that it keeps.  Any thread may ask, but one is served at a time, and
// so are those that ask different readers for events of one Dataset.
class ChunkReader {
 public:
  ChunkReader();

  // Writes event rows[i] to the out_row_bytes() bytes at destination[i], for i < count; the destinations must
  // not overlap.  Each chunk is read and decoded once, however many of its events are asked for.  Rows may
  // come in any order and more than once.  Events that can't be read are returned and their destinations are
  // zeroed.  With `lengths`, request i is the run of lengths[i] rows from rows[i], written one after another.
  std::vector<FailedRow> read(Dataset& dataset, int file, const int64_t* rows, uint8_t* const* destination,
                              const int64_t* lengths, size_t count, ReadCost& cost);

 private:
  struct Request {
    int64_t row;
    int64_t length;  // rows from there on, all of one block of chunks
    uint8_t* destination;
    int64_t index;
  };
  struct Piece {  // one chunk of a block of rows
    int64_t chunk;
    int64_t offset;
    int64_t size;
  };

  // Adds a run of rows, cut where a block of chunks ends.
  void add_run(const Dataset& dataset, int64_t row, int64_t length, uint8_t* destination, int64_t index);
  void read_addressable(const Dataset& dataset, int file, ReadCost& cost);
  void read_chunked(Dataset& dataset, int file, ReadCost& cost);
  void read_block(Dataset& dataset, int file, const Request* first, const Request* last, ReadCost& cost);
  // Decodes the chunks of a slab to `slab`; false, with all requests failed, where one can't be decoded.
  bool fill_slab(Dataset& dataset, int file, int64_t first_chunk, uint8_t* slab, const Request* first,
                 const Request* last, ReadCost& cost);
  bool decode_piece(Dataset& dataset, const Piece& piece, const uint8_t* raw, uint8_t* out, Fault& fault);
  // Decodes to `direct` where that is possible, else to a buffer; null and a fault where the bytes are bad.
  uint8_t* decode(Dataset& dataset, int64_t chunk, const uint8_t* raw, size_t raw_bytes, uint8_t* direct,
                  Fault& fault);
  void fill_chunk(const Dataset& dataset, uint8_t* out);
  void scatter(const Span& span, const uint8_t* from, uint8_t* to);
  // Byte order and type of decoded items; `items` is changed.
  void deliver(const Dataset& dataset, uint8_t* items, uint8_t* out, size_t count) const;
  bool pread_all(int file, uint8_t* to, size_t bytes, int64_t offset, int& error_number) const;
  bool inflate(Dataset& dataset, const uint8_t* raw, size_t raw_bytes, uint8_t* out, size_t bytes);
  void fail(const Request* first, const Request* last, Fault fault, int64_t offset, int error_number);

  std::mutex in_use_;
  std::vector<std::unique_ptr<Inflater>> inflaters_;
  std::vector<Request> requests_;
  std::vector<Piece> pieces_;
  std::vector<uint8_t> raw_, slab_, first_, second_;
  std::vector<FailedRow> failed_;
  std::vector<uint8_t> has_failed_;
};

}  // namespace hepfeed
