#include <cmath>
#include <cstring>
#include <stdexcept>

#include "cuda/images.h"
#include "kernels/cast.cuh"
#include "kernels/groups.cuh"
#include "kernels/mark_active.cuh"
#include "kernels/move_images.cuh"
#include "kernels/move_sites.cuh"
#include "kernels/noise.cuh"
#include "kernels/philox.cuh"
#include "kernels/point_cells.cuh"
#include "kernels/pointwise.cuh"
#include "kernels/put_sites.cuh"

namespace hepfeed::device {
namespace {

constexpr int kThreads = 256;

// Blocks for `threads` threads.
dim3 blocks_for(int64_t threads) {
  const int64_t blocks = (threads + kThreads - 1) / kThreads;
  if (blocks > kMaxGridX) throw std::invalid_argument("a launch takes less than 2^31 blocks");
  return dim3(static_cast<unsigned>(blocks));
}

dim3 blocks_for_fours(int64_t items) { return blocks_for((items + kFour - 1) / kFour); }

// Threads of quad_of() for events of `total` items.
int64_t quads_of(const Events& events, int64_t total) {
  return total == 0 || events.count == 0 ? 0 : total / kFour + events.count;
}

// Calls function(Unit{}) with an unsigned type of some bytes.
template <class Function>
void with_bytes(int bytes, const Function& function) {
  switch (bytes) {
    case 1:
      return function(uint8_t{});
    case 2:
      return function(uint16_t{});
    case 4:
      return function(uint32_t{});
    case 8:
      return function(uint64_t{});
    default:
      throw std::invalid_argument("items have 1, 2, 4 or 8 bytes");
  }
}

template <class Unit>
void move_units(const void* in, void* out, const Move& move, const uint8_t* fill, Stream stream) {
  Layout layout{};
  int64_t out_units = 1;
  layout.in_units = 1;
  for (int axis = move.axes - 1; axis >= 0; --axis) {
    layout.in_stride[axis] = layout.in_units;
    layout.in_units *= move.in_shape[axis];
    out_units *= move.out_shape[axis];
  }
  if (out_units == 0 || move.events == 0) return;
  constexpr int64_t kTile = int64_t{kMoveThreads} * kMoves;
  const int64_t blocks = (out_units + kTile - 1) / kTile;
  if (out_units >= (int64_t{1} << 31) || blocks * move.events > kMaxGridX)
    throw std::invalid_argument("images are of less than 2^31 units, in less than 2^31 blocks");
  for (int axis = 0; axis < move.axes; ++axis)
    layout.out_length[axis] = Divisor(static_cast<uint32_t>(move.out_shape[axis]));
  layout.out_units = static_cast<uint32_t>(out_units);
  layout.blocks = static_cast<uint32_t>(blocks);
  Unit filling;
  std::memcpy(&filling, fill, sizeof(Unit));
  launch(move_images<Unit>, dim3(static_cast<unsigned>(blocks * move.events)), dim3(kMoveThreads), 0, stream,
         static_cast<const Unit*>(in), static_cast<Unit*>(out), move, layout, filling);
}

}  // namespace

void draw(const Events& events, int64_t total, const Key& key, Drawn drawn, double low, double high,
          void* out, Stream stream) {
  launch(draw_numbers, blocks_for(quads_of(events, total)), dim3(kThreads), 0, stream, events, key, drawn,
         low, high - low, out);
}

void gaussian_noise(const Items& in, const Results& out, const Events& events, int64_t total, const Key& key,
                    double sigma, bool relative, bool only_active, Stream stream) {
  launch(add_gaussian_noise, blocks_for(quads_of(events, total)), dim3(kThreads), 0, stream, in, out, events,
         key, sigma, relative, only_active);
}

void poisson_noise(const Items& in, const Results& out, const Events& events, int64_t total, const Key& key,
                   double scale, int32_t* fault, Stream stream) {
  launch(draw_poisson, blocks_for(events.count ? total : 0), dim3(kThreads), 0, stream, in, out, events, key,
         scale, fault);
}

void drop_items(const void* in, void* out, int item_bytes, const Events& events, int64_t total,
                const Key& key, double probability, Stream stream) {
  // u < p for u = word 2^-53 is word < ceil(p 2^53).
  const auto threshold = static_cast<uint64_t>(std::ceil(probability * 0x1p53));
  with_bytes(item_bytes, [&](auto zero) {
    using Item = decltype(zero);
    launch(drop_random<Item>, blocks_for(quads_of(events, total)), dim3(kThreads), 0, stream,
           static_cast<const Item*>(in), static_cast<Item*>(out), events, key, threshold);
  });
}

void pointwise(const Items& in, const Results& out, int64_t count, const Program& program,
               const Present& present, int32_t* fault, Stream stream) {
  launch(run_program, blocks_for_fours(count), dim3(kThreads), 0, stream, in, out, count, program, present,
         fault);
}

void cast(const Items& in, const Results& out, int64_t count, Rounding rounding, int32_t* fault,
          Stream stream) {
  launch(cast_items, blocks_for_fours(count), dim3(kThreads), 0, stream, in, out, count, rounding, fault);
}

void move_images(const void* in, void* out, int unit_bytes, const Move& move, const uint8_t* fill,
                 Stream stream) {
  if (unit_bytes == 16) return move_units<uint4>(in, out, move, fill, stream);
  with_bytes(unit_bytes, [&](auto zero) { move_units<decltype(zero)>(in, out, move, fill, stream); });
}

void move_sites(const int32_t* indices, int64_t count, const Move& move, int32_t* moved, uint64_t* keys,
                int32_t* rows, int32_t* fault, Stream stream) {
  launch(number_moved_sites, blocks_for(count), dim3(kThreads), 0, stream, indices, count, move, moved, keys,
         rows, fault);
}

void put_sites(const int32_t* indices, const void* features, int item_bytes, int64_t count,
               const SiteImages& images, void* out, int32_t* fault, Stream stream) {
  with_bytes(item_bytes, [&](auto zero) {
    using Item = decltype(zero);
    launch(scatter_sites<Item>, blocks_for(count * images.channels), dim3(kThreads), 0, stream, indices,
           static_cast<const Item*>(features), count, images, static_cast<Item*>(out), fault);
  });
}

void mark_active(const ChannelImages& images, double threshold, bool absolute, uint8_t* marks,
                 Stream stream) {
  launch(mark_sites, blocks_for_fours(images.outer * images.inner), dim3(kThreads), 0, stream, images,
         threshold, absolute, marks);
}

void cells_of_points(const Axes& axes, const Events& events, int64_t points, Outside outside, uint64_t* keys,
                     int32_t* rows, int32_t* fault, Stream stream) {
  launch(number_point_cells, blocks_for(points), dim3(kThreads), 0, stream, axes, events, points, outside,
         keys, rows, fault);
}

void reduce_groups(const Groups& groups, const Items& in, int64_t columns, Reduction reduction, float* out,
                   int64_t out_stride, Stream stream) {
  launch(reduce_group_columns, blocks_for(groups.count * columns), dim3(kThreads), 0, stream, groups, in,
         columns, reduction, out, out_stride);
}

void labels_of_largest(const Groups& groups, const int64_t* label, const Items& weight, int64_t stride,
                       int64_t* out, Stream stream) {
  launch(pick_largest_labels, blocks_for(groups.count), dim3(kThreads), 0, stream, groups, label, weight,
         stride, out);
}

void labels_of_majority(const Groups& groups, const int64_t* label, int64_t* out, Stream stream) {
  launch(pick_majority_labels, blocks_for(groups.count), dim3(kThreads), 0, stream, groups, label, out);
}

}  // namespace hepfeed::device
