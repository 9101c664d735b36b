// What the kernels on batches take: no header of CUDA, so that launchers and bindings may include it.
// Pointers are of device memory.
#pragma once

#include <cstdint>

namespace hepfeed::device {

constexpr int kMaxAxes = 8;

// The type of an item, in the order of `Type` in cpu/convert.h; `b8` is a bool, one byte of 0 or 1.
enum class Number : int32_t { i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64, b8 };

struct Items {
  const void* data;
  Number type;
};

struct Results {
  void* data;
  Number type;
};

// Items of event e are offsets[e] width .. offsets[e + 1] width - 1: rows of `width` items each.
struct Events {
  const int64_t* offsets;  // (count + 1), from 0 on
  int64_t count;
  int64_t width;
};

// Whose random numbers: the generator's key is (seed, step), and the counter of an event ends with its file
// and row, ids (events, 2), and the epoch.
struct Key {
  uint64_t seed;
  uint64_t step;
  uint64_t epoch;
  const int64_t* ids;
};

// What is made of the words of a stream.
enum class Drawn : int32_t { raw, uniform, normal };

// As in cpu/pointwise.h.
enum class Op : int32_t { linear, clip, log, log_tanh, round };

// Parameters are params (length, 3, entries); item i uses entry (i / run) % entries.
struct Program {
  const int32_t* ops;
  int32_t length;
  const double* params;
  int64_t entries;
  int64_t run;
};

// Which items count: those before *rows times `width`; all where `rows` is null.
struct Present {
  const int64_t* rows;
  int64_t width;
};

// What becomes of fractions where a float becomes an integer.
enum class Rounding : int32_t { exact, nearest, down };

constexpr int kNoPlane = -1;

// Item x of event e of the output is item y of the input, or a fill where y is outside.
//
// In the plane (first, second), of equal lengths n, the image is turned by quarters[e] times 90 degrees: one
// of them makes y_first = x_second, y_second = n - 1 - x_first, as numpy.rot90.  Along axes that do not turn
// y = x + origin[e], and then length - 1 - y where reversed[e].
struct Move {
  int32_t axes;
  int32_t first;  // kNoPlane where there is no turn
  int32_t second;
  int64_t events;
  int64_t in_shape[kMaxAxes];
  int64_t out_shape[kMaxAxes];
  const int64_t* origin;    // (events, axes), or null for 0
  const uint8_t* reversed;  // (events, axes), or null for none
  const uint8_t* quarters;  // (events), 0 to 3; null where there is no turn
};

// How the coordinates along one axis become bins: floor((x - low) / size), or, with `edges`, the bin with
// edges[bin] <= x < edges[bin + 1], the last edge belonging to the last bin where `last_closed`.
struct Axis {
  const void* data;  // item i at data[i * stride]
  Number type;
  bool last_closed;
  int64_t stride;
  double low;
  double size;
  int64_t count;
  const double* edges;  // (count + 1), rising; or null
};

struct Axes {
  int32_t count;
  Axis axis[kMaxAxes];
};

// What becomes of a point that is not in the grid.
enum class Outside : int32_t { drop, clip, raise };

// Rows order[i] with equal keys[i] lie together, and make a group; those with a key of `outside` or above are
// in none.
struct Groups {
  const uint64_t* keys;  // (rows), rising
  const int32_t* order;  // (rows)
  const int64_t*
      starts;     // (count): where groups begin, rising; null: wherever a key differs from the last one
  int64_t count;  // of groups; of rows where `starts` is null
  int64_t rows;
  uint64_t outside;
};

enum class Reduction : int32_t { sum, mean, max };

// Dense images that sites are written to.
struct SiteImages {
  int32_t axes;
  int64_t events;
  int64_t shape[kMaxAxes];
  int64_t channels;
  int64_t inner;  // items of one channel that lie together: those of the axes behind that of the channels
};

// Dense images (outer, channels, inner).
struct ChannelImages {
  Items items;
  int64_t outer;
  int64_t channels;
  int64_t inner;
};

}  // namespace hepfeed::device
