// Python bindings of the kernels of the cache: pybind11 only, no torch and no NumPy headers.
//
// Arrays are never copied here: one of another dtype, or not in C order, is refused.  Addresses travel as
// uint64 and are trusted.
//
// All functions may be called from several threads at once, with or without Python's lock; arguments must not
// be changed by others meanwhile, and outputs must not overlap.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu/bus_guard.h"
#include "cpu/isa.h"
#include "cpu/pack_cells.h"
#include "cpu/read_runs.h"
#include "cpu/stream_copy.h"
#include "cpu/unpack_cells.h"

namespace py = pybind11;

namespace hepfeed {
namespace {

static_assert(sizeof(uint8_t*) == sizeof(uint64_t), "addresses travel as uint64");

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // of arguments marked noconvert(): checked, not copied

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// Addresses as pointers.
template <class T>
T* const* pointers(const Array<uint64_t>& addresses) {
  return reinterpret_cast<T* const*>(addresses.data());
}

// Checks that an array has an item for each of `count` events.
template <class T>
void require_items(const Array<T>& array, py::ssize_t count, const char* message) {
  require(array.ndim() == 1 && array.size() == count, message);
}

void require_not_negative(const Array<int64_t>& array, const char* message) {
  for (py::ssize_t i = 0; i < array.size(); ++i) require(array.data()[i] >= 0, message);
}

void require_guard(bool guarded) {
  require(!guarded || bus_errors_guarded(), "guarded=True needs guard_bus_errors() to have been called");
}

void require_cell_bytes(size_t bytes) {
  require(bytes == 2 || bytes == 4 || bytes == 8, "cells have 2, 4 or 8 bytes");
}

ImageBlock block_of(const py::array& images, size_t events) {
  require((images.flags() & py::array::c_style) != 0, "images must be in C order");
  const std::string kinds = "biufc";
  require(kinds.find(images.dtype().kind()) != std::string::npos, "images do not hold numbers");
  const auto size = static_cast<size_t>(images.size()), item = static_cast<size_t>(images.itemsize());
  require(item <= 16 && (item & (item - 1)) == 0, "items have 1, 2, 4, 8 or 16 bytes");
  require(events ? size % events == 0 : size == 0, "images are not a whole number of items an event");
  return {static_cast<const uint8_t*>(images.data()), events, events ? size / events : 0, item};
}

// Checks a shape; returns how many cells it has.
uint64_t volume_of(const std::vector<int64_t>& shape) {
  require(!shape.empty(), "a shape has one axis or more");
  uint64_t volume = 1;
  bool empty = false;
  for (const int64_t extent : shape) {
    require(extent >= 0 && extent <= std::numeric_limits<int32_t>::max(),
            "a shape has 0 to 2^31 - 1 cells an axis");
    empty |= extent == 0;
    require(!__builtin_mul_overflow(volume, static_cast<uint64_t>(extent ? extent : 1), &volume) &&
                volume < uint64_t{1} << 62,
            "a shape has less than 2^62 cells");
  }
  return empty ? 0 : volume;
}

Array<int64_t> bind_count_cells(const py::array& images, size_t events) {
  const ImageBlock block = block_of(images, events);
  Array<int64_t> counts(static_cast<py::ssize_t>(events));
  int64_t* out = counts.mutable_data();
  py::gil_scoped_release released;
  count_cells(block, out);
  return counts;
}

// Bytes that grow at their end; not cleared.
class Bytes {
 public:
  // Makes room for `more` bytes; returns where they begin.
  uint8_t* room(size_t more) {
    if (size_ + more > capacity_) {
      const size_t wanted = std::max(size_ + more, 2 * capacity_);
      std::unique_ptr<uint8_t[]> larger(new uint8_t[wanted]);
      if (size_) std::memcpy(larger.get(), data_.get(), size_);
      data_ = std::move(larger);
      capacity_ = wanted;
    }
    return data_.get() + size_;
  }

  // Takes bytes of the room for good.
  void take(size_t bytes) { size_ += bytes; }

  py::array as(const py::dtype& dtype) const {
    py::array array(dtype, static_cast<py::ssize_t>(size_ / static_cast<size_t>(dtype.itemsize())));
    if (size_) std::memcpy(array.mutable_data(), data_.get(), size_);
    return array;
  }

 private:
  std::unique_ptr<uint8_t[]> data_;
  size_t size_ = 0, capacity_ = 0;
};

py::tuple bind_pack(const py::array& images, size_t events, size_t cell_bytes) {
  require_cell_bytes(cell_bytes);
  const ImageBlock block = block_of(images, events);
  require(cell_bytes == 8 || block.volume <= uint64_t{1} << 8 * cell_bytes,
          "the cells of an image need more bytes");
  Array<int64_t> counts(static_cast<py::ssize_t>(events));
  int64_t* out = counts.mutable_data();
  Bytes cells, values;
  {
    py::gil_scoped_release released;
    const size_t most = block.volume + kPackRoom;
    for (size_t e = 0; e < events; ++e) {
      const size_t count = pack_image(block, e, cell_bytes, cells.room(most * cell_bytes),
                                      values.room(most * block.item_bytes));
      out[e] = static_cast<int64_t>(count);
      cells.take(count * cell_bytes);
      values.take(count * block.item_bytes);
    }
  }
  return py::make_tuple(counts, cells.as(py::dtype("u" + std::to_string(cell_bytes))),
                        values.as(images.dtype()));
}

py::array bind_ravel(const Array<int32_t>& indices, const std::vector<int64_t>& shape, size_t cell_bytes) {
  require_cell_bytes(cell_bytes);
  const uint64_t volume = volume_of(shape);
  require(cell_bytes == 8 || volume <= uint64_t{1} << 8 * cell_bytes,
          "the cells of the shape need more bytes");
  require(indices.ndim() == 2 && indices.shape(1) == static_cast<py::ssize_t>(1 + shape.size()),
          "indices must have a column for the event and one for each axis of the shape");
  const auto rows = static_cast<size_t>(indices.shape(0));
  py::array cells(py::dtype("u" + std::to_string(cell_bytes)), indices.shape(0));
  auto* out = static_cast<uint8_t*>(cells.mutable_data());
  size_t done;
  {
    py::gil_scoped_release released;
    done = ravel_sites(indices.data(), rows, shape.data(), shape.size(), cell_bytes, out);
  }
  if (done == rows) return cells;
  const auto words = [](const auto* numbers, size_t count) {
    std::string all;
    for (size_t i = 0; i < count; ++i) all += (i ? ", " : "") + std::to_string(numbers[i]);
    return "(" + all + ")";
  };
  const int32_t* site = indices.data() + done * (1 + shape.size());
  throw std::invalid_argument("site " + std::to_string(done) + ", " + words(site + 1, shape.size()) +
                              " of event " + std::to_string(site[0]) + ", lies outside of the shape " +
                              words(shape.data(), shape.size()));
}

Array<uint8_t> bind_densify(const Array<uint64_t>& cells, const Array<uint64_t>& values,
                            const Array<int64_t>& counts, const Array<uint64_t>& images, uint64_t volume,
                            size_t cell_bytes, size_t item_bytes, bool guarded) {
  const char* const differ = "cells, values, counts and images differ in length";
  require(cells.ndim() == 1, "cells must have one axis");
  require_items(values, cells.size(), differ);
  require_items(counts, cells.size(), differ);
  require_items(images, cells.size(), differ);
  require_not_negative(counts, "a count is negative");
  require_cell_bytes(cell_bytes);
  require(item_bytes >= 1 && item_bytes <= 16 && (item_bytes & (item_bytes - 1)) == 0,
          "items have 1, 2, 4, 8 or 16 bytes");
  require(volume <= uint64_t{1} << 58, "an image has at most 2^58 items");
  require_guard(guarded);
  Array<uint8_t> faults(cells.size());
  uint8_t* out = faults.mutable_data();
  const CellRuns runs{pointers<const uint8_t>(cells), counts.data(), static_cast<size_t>(cells.size()),
                      cell_bytes};
  const ImageRuns to{pointers<const uint8_t>(values), pointers<uint8_t>(images), static_cast<size_t>(volume),
                     item_bytes};
  py::gil_scoped_release released;
  fill_images(runs, to, guarded, out);
  return faults;
}

Array<uint8_t> bind_unravel(const Array<uint64_t>& cells, const Array<int64_t>& counts,
                            const std::vector<int64_t>& shape, size_t cell_bytes, uint64_t indices,
                            int64_t first_event, bool guarded) {
  require(cells.ndim() == 1, "cells must have one axis");
  require_items(counts, cells.size(), "cells and counts differ in length");
  require_not_negative(counts, "a count is negative");
  require_cell_bytes(cell_bytes);
  volume_of(shape);
  require(first_event >= 0 && first_event <= std::numeric_limits<int32_t>::max() - cells.size(),
          "the numbers of events must be int32");
  require_guard(guarded);
  Array<uint8_t> faults(cells.size());
  uint8_t* out = faults.mutable_data();
  const CellRuns runs{pointers<const uint8_t>(cells), counts.data(), static_cast<size_t>(cells.size()),
                      cell_bytes};
  py::gil_scoped_release released;
  unravel_cells(runs, shape, static_cast<int32_t>(first_event), reinterpret_cast<int32_t*>(indices), guarded,
                out);
  return faults;
}

struct Copies {
  const uint8_t* const* source;
  uint8_t* const* destination;
  const int64_t* bytes;
  size_t count;
};

// Carries copies out; returns their faults.
Array<uint8_t> copied(Copies& copies, bool guarded) {
  Array<uint8_t> faults(static_cast<py::ssize_t>(copies.count));
  uint8_t* out = faults.mutable_data();
  const auto piece = [](void* context, size_t i) {
    const auto* all = static_cast<const Copies*>(context);
    const bool last = i + 1 == all->count;
    stream_copy_far(all->destination[i], all->source[i], static_cast<size_t>(all->bytes[i]),
                    last ? nullptr : all->source[i + 1], last ? 0 : static_cast<size_t>(all->bytes[i + 1]));
    return Fault::none;
  };
  py::gil_scoped_release released;
  run_pieces(piece, &copies, copies.count, guarded, out);
  return faults;
}

Array<uint8_t> bind_copy_runs(const Array<uint64_t>& source, const Array<uint64_t>& destination,
                              const Array<int64_t>& bytes, bool guarded) {
  const char* const differ = "sources, destinations and bytes differ in length";
  require(source.ndim() == 1, "sources must have one axis");
  require_items(destination, source.size(), differ);
  require_items(bytes, source.size(), differ);
  require_not_negative(bytes, "a run of less than no bytes");
  require_guard(guarded);
  Copies copies{pointers<const uint8_t>(source), pointers<uint8_t>(destination), bytes.data(),
                static_cast<size_t>(source.size())};
  return copied(copies, guarded);
}

// Where the parts of a cache lie in memory, and a column in each of them.
struct PartColumn {
  const Array<uint64_t>& base;
  const Array<int64_t>& offset;
  size_t row_bytes;

  uint64_t address(int64_t part, int64_t row) const {
    return base.data()[part] + static_cast<uint64_t>(offset.data()[part]) +
           static_cast<uint64_t>(row) * row_bytes;
  }
};

void require_places(const PartColumn& column, const Array<int64_t>& part, const Array<int64_t>& row) {
  require(column.base.ndim() == 1, "bases must have one axis");
  require_items(column.offset, column.base.size(), "bases and offsets differ in length");
  require(part.ndim() == 1, "parts must have one axis");
  require_items(row, part.size(), "parts and rows differ in length");
  for (py::ssize_t i = 0; i < part.size(); ++i)
    require(part.data()[i] >= 0 && part.data()[i] < column.base.size() && row.data()[i] >= 0,
            "there is no such part or row");
}

Array<uint64_t> bind_locate(const Array<uint64_t>& base, const Array<int64_t>& offset,
                            const Array<int64_t>& part, const Array<int64_t>& row, size_t row_bytes) {
  const PartColumn column{base, offset, row_bytes};
  require_places(column, part, row);
  Array<uint64_t> addresses(part.size());
  for (py::ssize_t i = 0; i < part.size(); ++i)
    addresses.mutable_data()[i] = column.address(part.data()[i], row.data()[i]);
  return addresses;
}

Array<uint8_t> bind_gather(const Array<uint64_t>& base, const Array<int64_t>& offset,
                           const Array<int64_t>& part, const Array<int64_t>& row,
                           const std::optional<Array<int64_t>>& counts, size_t row_bytes,
                           uint64_t destination, bool guarded) {
  const PartColumn column{base, offset, row_bytes};
  require_places(column, part, row);
  if (counts) {
    require_items(*counts, part.size(), "parts and counts differ in length");
    require_not_negative(*counts, "a count is negative");
  }
  require_guard(guarded);
  const auto events = static_cast<size_t>(part.size());
  std::vector<const uint8_t*> source(events);
  std::vector<uint8_t*> target(events);
  std::vector<int64_t> bytes(events);
  for (size_t i = 0; i < events; ++i) {
    source[i] = reinterpret_cast<const uint8_t*>(column.address(part.data()[i], row.data()[i]));
    target[i] = reinterpret_cast<uint8_t*>(destination);
    bytes[i] = static_cast<int64_t>(row_bytes) * (counts ? counts->data()[i] : 1);
    destination += static_cast<uint64_t>(bytes[i]);
  }
  Copies copies{source.data(), target.data(), bytes.data(), events};
  return copied(copies, guarded);
}

Array<int32_t> bind_read_runs(const Array<int32_t>& descriptor, const Array<int64_t>& offset,
                              const Array<int64_t>& bytes, const Array<uint64_t>& destination) {
  const char* const differ = "descriptors, offsets, bytes and destinations differ in length";
  require(descriptor.ndim() == 1, "descriptors must have one axis");
  require_items(offset, descriptor.size(), differ);
  require_items(bytes, descriptor.size(), differ);
  require_items(destination, descriptor.size(), differ);
  require_not_negative(offset, "an offset is negative");
  require_not_negative(bytes, "a run of less than no bytes");
  for (py::ssize_t i = 0; i < offset.size(); ++i)
    require(offset.data()[i] <= std::numeric_limits<int64_t>::max() - bytes.data()[i],
            "a run ends beyond 2^63 - 1 bytes");
  Array<int32_t> results(descriptor.size());
  int32_t* out = results.mutable_data();
  const FileRuns runs{descriptor.data(), offset.data(), bytes.data(), pointers<uint8_t>(destination),
                      static_cast<size_t>(descriptor.size())};
  py::gil_scoped_release released;
  read_runs(runs, out);
  return results;
}

}  // namespace
}  // namespace hepfeed

PYBIND11_MODULE(_cache, m, py::mod_gil_not_used()) {
  using namespace hepfeed;  // NOLINT
  m.doc() = "Native kernels of the cache: images as cells and values, and runs of bytes from files.";

  m.def("isa", &isa_name,
        "Name of the instruction set in use: 'baseline', 'avx2', 'avx512', 'avx512_bf16' or 'amx'.");
  m.def("set_isa", &set_isa, py::arg("name"), "Restrict the kernels to an instruction set.");

  m.def("count_cells", &bind_count_cells, py::arg("images").noconvert(), py::arg("events"),
        "Number of items of each event that have a bit set, (events,) int64.");
  m.def("pack", &bind_pack, py::arg("images").noconvert(), py::arg("events"), py::arg("cell_bytes"),
        "The items that have a bit set: (how many of each event, their numbers within it, the items).");
  m.def("ravel", &bind_ravel, py::arg("indices").noconvert(), py::arg("shape"), py::arg("cell_bytes"),
        "Numbers in C order over shape of the sites indices[:, 1:].");
  m.def("densify", &bind_densify, py::arg("cells").noconvert(), py::arg("values").noconvert(),
        py::arg("counts").noconvert(), py::arg("images").noconvert(), py::arg("volume"),
        py::arg("cell_bytes"), py::arg("item_bytes"), py::arg("guarded"),
        "Clear each image and set its cells to its values; returns the faults, (n,) uint8.");
  m.def("unravel", &bind_unravel, py::arg("cells").noconvert(), py::arg("counts").noconvert(),
        py::arg("shape"), py::arg("cell_bytes"), py::arg("indices"), py::arg("first_event"),
        py::arg("guarded"),
        "Write rows (event, coordinates) of the cells to the address indices; returns the faults.");
  m.def("copy_runs", &bind_copy_runs, py::arg("source").noconvert(), py::arg("destination").noconvert(),
        py::arg("bytes").noconvert(), py::arg("guarded"),
        "Copy bytes[i] bytes from source address i to destination address i; returns the faults.");
  m.def("locate", &bind_locate, py::arg("base").noconvert(), py::arg("offset").noconvert(),
        py::arg("part").noconvert(), py::arg("row").noconvert(), py::arg("row_bytes"),
        "Addresses base[part] + offset[part] + row * row_bytes.");
  m.def("gather", &bind_gather, py::arg("base").noconvert(), py::arg("offset").noconvert(),
        py::arg("part").noconvert(), py::arg("row").noconvert(), py::arg("counts").noconvert(),
        py::arg("row_bytes"), py::arg("destination"), py::arg("guarded"),
        "Copy counts[i] rows (None: one) from where locate() says to an address, one run after another; "
        "returns "
        "the faults.");
  m.def(
      "read_runs", &bind_read_runs, py::arg("descriptor").noconvert(), py::arg("offset").noconvert(),
      py::arg("bytes").noconvert(), py::arg("destination").noconvert(),
      "Read bytes[i] bytes at offset[i] of descriptor i to destination address i; returns 0, an errno or -1 "
      "(the file ends before) for each.");
  m.def("guard_bus_errors", &guard_bus_errors,
        "Install the handler of SIGBUS that guarded=True needs; once.");
}
