// Python bindings of the native kernels: pybind11 only, no torch and no NumPy headers.
//
// All functions may be called from several threads at once, with or without Python's lock; arguments must not
// be changed by others meanwhile, and outputs must not overlap.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu/chunk_reader.h"
#include "cpu/convert.h"
#include "cpu/dataset.h"
#include "cpu/fletcher32.h"
#include "cpu/inflate.h"
#include "cpu/isa.h"
#include "cpu/stream_copy.h"
#include "cpu/unshuffle.h"

namespace py = pybind11;

namespace hepfeed {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <class T>
std::vector<T> to_vector(const Array<T>& array) {
  return std::vector<T>(array.data(), array.data() + array.size());
}

std::unique_ptr<Dataset> make_dataset(std::vector<int64_t> shape, const std::string& type, size_t item,
                                      const std::string& out_type, size_t out_item, bool swap, int64_t offset,
                                      std::vector<int64_t> chunk, std::vector<int> filters,
                                      const py::bytes& fill, const Array<int64_t>& chunk_offset,
                                      const Array<int64_t>& chunk_size, const Array<uint32_t>& chunk_mask) {
  auto made = std::make_unique<Dataset>();
  Dataset& set = *made;
  set.shape = std::move(shape);
  set.type = type_of(type);
  set.item = item;
  set.out_type = type_of(out_type);
  set.out_item = out_item;
  set.swap = swap;
  set.offset = offset;
  set.chunk = std::move(chunk);
  set.filters = std::move(filters);
  const std::string value = fill;
  set.fill.assign(value.begin(), value.end());
  set.chunk_offset = to_vector(chunk_offset);
  set.chunk_size = to_vector(chunk_size);
  set.chunk_mask = to_vector(chunk_mask);
  set.prepare();
  return made;
}

// Each part is (data set, descriptor, first, last): rows[first:last] are events of that data set.
// With lengths, each is a run of rows.
py::tuple read_events(ChunkReader& reader, const py::list& parts, const Array<int64_t>& rows,
                      const Array<uint64_t>& destination, const std::optional<Array<int64_t>>& lengths) {
  static_assert(sizeof(uint8_t*) == sizeof(uint64_t), "addresses travel as uint64");
  struct Part {
    Dataset* dataset;
    int file;
    int64_t first, last;
  };
  if (rows.size() != destination.size() || (lengths && lengths->size() != rows.size()))
    throw std::invalid_argument("rows, destinations and lengths differ in length");
  const int64_t* const run = lengths ? lengths->data() : nullptr;
  std::vector<Part> todo;
  const py::tuple fixed(parts);  // keeps the data sets, whatever another thread does with the list
  for (const auto& item : fixed) {
    const auto part = item.cast<py::tuple>();
    todo.push_back(
        {part[0].cast<Dataset*>(), part[1].cast<int>(), part[2].cast<int64_t>(), part[3].cast<int64_t>()});
    const Part& last = todo.back();
    if (last.first < 0 || last.last < last.first || last.last > rows.size())
      throw std::invalid_argument("a part beyond the rows");
  }
  ReadCost cost;
  std::vector<FailedRow> failed;
  {
    py::gil_scoped_release released;
    for (const auto& part : todo) {
      auto some =
          reader.read(*part.dataset, part.file, rows.data() + part.first,
                      reinterpret_cast<uint8_t* const*>(destination.data()) + part.first,
                      run ? run + part.first : nullptr, static_cast<size_t>(part.last - part.first), cost);
      for (auto& row : some) row.request += part.first;
      failed.insert(failed.end(), some.begin(), some.end());
    }
  }
  py::list failures;
  for (const auto& row : failed)
    failures.append(
        py::make_tuple(row.request, static_cast<int>(row.fault), row.file_offset, row.error_number));
  return py::make_tuple(py::make_tuple(cost.read_ns, cost.inflate_ns, cost.scatter_ns, cost.bytes_read,
                                       cost.bytes_inflated, cost.chunks),
                        failures);
}

void copy_events(const Array<uint64_t>& source, const Array<uint64_t>& destination, size_t row_bytes) {
  if (source.size() != destination.size())
    throw std::invalid_argument("sources and destinations differ in length");
  py::gil_scoped_release released;
  for (py::ssize_t i = 0; i < source.size(); ++i)
    stream_copy(reinterpret_cast<uint8_t*>(destination.data()[i]),
                reinterpret_cast<const uint8_t*>(source.data()[i]), row_bytes);
}

void copy_runs(const Array<uint64_t>& source, const Array<uint64_t>& destination,
               const Array<int64_t>& bytes) {
  if (source.size() != destination.size() || source.size() != bytes.size())
    throw std::invalid_argument("sources, destinations and bytes differ in length");
  for (py::ssize_t i = 0; i < bytes.size(); ++i)
    if (bytes.data()[i] < 0) throw std::invalid_argument("a run of less than no bytes");
  py::gil_scoped_release released;
  for (py::ssize_t i = 0; i < source.size(); ++i)
    stream_copy(reinterpret_cast<uint8_t*>(destination.data()[i]),
                reinterpret_cast<const uint8_t*>(source.data()[i]), static_cast<size_t>(bytes.data()[i]));
}

// The content of a bytes object, and a new one to write to: neither is copied.
struct View {
  explicit View(const py::bytes& data)
      : bytes(reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(data.ptr()))),
        size(static_cast<size_t>(PyBytes_GET_SIZE(data.ptr()))) {}
  uint8_t* bytes;
  size_t size;
};

py::bytes new_bytes(size_t size) {
  auto made =
      py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(size)));
  if (!made) throw py::error_already_set();
  return made;
}

py::bytes unshuffle_bytes(const py::bytes& data, size_t item) {
  const View in(data);
  if (item == 0 || in.size % item) throw std::invalid_argument("data is not a whole number of items");
  py::bytes out = new_bytes(in.size);
  unshuffle(in.bytes, View(out).bytes, in.size / item, item);
  return out;
}

py::bytes convert_bytes(const py::bytes& data, const std::string& from, const std::string& to,
                        size_t from_item, size_t to_item) {
  const View in(data);
  if (from_item == 0 || in.size % from_item)
    throw std::invalid_argument("data is not a whole number of items");
  py::bytes out = new_bytes(in.size / from_item * to_item);
  convert(in.bytes, type_of(from), View(out).bytes, type_of(to), in.size / from_item);
  return out;
}

uint32_t fletcher32_bytes(const py::bytes& data) {
  const View in(data);
  return fletcher32(in.bytes, in.size);
}

py::object inflate_bytes(const std::string& library, const py::bytes& data, size_t out_bytes) {
  const auto names = inflaters();
  auto made = make_inflaters();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] != library) continue;
    const View in(data);
    py::bytes out = new_bytes(out_bytes);
    if (!made[i]->inflate(in.bytes, in.size, View(out).bytes, out_bytes)) return py::none();
    return out;
  }
  throw std::invalid_argument("library '" + library + "' is not registered");
}

}  // namespace
}  // namespace hepfeed

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  using namespace hepfeed;  // NOLINT
  m.doc() = "Native kernels of hepfeed: decoding of HDF5 chunks and movement of events.";

  m.def("isa", &isa_name,
        "Name of the instruction set in use: 'baseline', 'avx2', 'avx512', 'avx512_bf16' or 'amx'.");
  m.def("set_isa", &set_isa, py::arg("name"), "Restrict the kernels to an instruction set.");
  m.def("register_inflater", &register_inflater, py::arg("library"), py::arg("path"),
        "Open a library that inflates; False if the file does not offer its functions.");
  m.def("inflaters", &inflaters, "Names of the registered libraries.");

  py::class_<Dataset>(m, "Dataset", "An HDF5 data set as bytes in a file.")
      .def(py::init(&make_dataset), py::kw_only(), py::arg("shape"), py::arg("type"), py::arg("item"),
           py::arg("out_type"), py::arg("out_item"), py::arg("swap"), py::arg("offset"), py::arg("chunk"),
           py::arg("filters"), py::arg("fill"), py::arg("chunk_offset"), py::arg("chunk_size"),
           py::arg("chunk_mask"))
      .def_property_readonly(
          "inflater", [](const Dataset& dataset) { return dataset.inflater.load(); },
          "Index into inflaters(); -1 until all were tried on some chunks.")
      .def_property_readonly("out_row_bytes", &Dataset::out_row_bytes, "Bytes of one delivered event.");

  py::class_<ChunkReader>(m, "ChunkReader",
                          "Reads events, with buffers of its own; serves one thread at a time.")
      .def(py::init<>())
      .def("read", &read_events, py::arg("parts"), py::arg("rows"), py::arg("destination"),
           py::arg("lengths") = py::none(),
           "Write event rows[i], or the lengths[i] rows from there on, to address destination[i], for parts "
           "(data set, descriptor, first i, last i); returns (costs, failures).");

  m.def("copy_rows", &copy_events, py::arg("source"), py::arg("destination"), py::arg("row_bytes"),
        "Copy row_bytes bytes from each source address to its destination address.");

  m.def("copy_runs", &copy_runs, py::arg("source"), py::arg("destination"), py::arg("bytes"),
        "Copy bytes[i] bytes from source address i to destination address i.");

  m.def("unshuffle", &unshuffle_bytes, py::arg("data"), py::arg("item"), "HDF5's shuffle filter, undone.");
  m.def("convert", &convert_bytes, py::arg("data"), py::arg("from_type"), py::arg("to_type"),
        py::arg("from_item"), py::arg("to_item"), "Items of one type as items of another.");
  m.def("fletcher32", &fletcher32_bytes, py::arg("data"), "HDF5's fletcher32 checksum.");
  m.def("inflate", &inflate_bytes, py::arg("library"), py::arg("data"), py::arg("out_bytes"),
        "A zlib stream inflated by one of inflaters(); None if it is broken.");
}
