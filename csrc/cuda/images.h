// Steps of the feed on batches that are on a device; see the kernels in kernels/ of the same names.
//
// All addresses are of device memory that the caller owns, and work is queued on `stream`.  `fault` is an
// int32 that is 0 before and not 0 after a kernel has met what it refuses; its outputs are of no use then.
#pragma once

#include <cstdint>

#include "kernels/batch.h"
#include "launch.h"

namespace hepfeed::device {

// `total` is the number of items of all events, or more, in what follows.

void draw(const Events& events, int64_t total, const Key& key, Drawn drawn, double low, double high,
          void* out, Stream stream);

void gaussian_noise(const Items& in, const Results& out, const Events& events, int64_t total, const Key& key,
                    double sigma, bool relative, bool only_active, Stream stream);

void poisson_noise(const Items& in, const Results& out, const Events& events, int64_t total, const Key& key,
                   double scale, int32_t* fault, Stream stream);

// Items of 1, 2, 4 or 8 bytes become 0 with a probability.
void drop_items(const void* in, void* out, int item_bytes, const Events& events, int64_t total,
                const Key& key, double probability, Stream stream);

void pointwise(const Items& in, const Results& out, int64_t count, const Program& program,
               const Present& present, int32_t* fault, Stream stream);

void cast(const Items& in, const Results& out, int64_t count, Rounding rounding, int32_t* fault,
          Stream stream);

// Units of 1, 2, 4, 8 or 16 bytes; `fill` has the bytes of one.  An event of the output has less than 2^31 of
// them.
void move_images(const void* in, void* out, int unit_bytes, const Move& move, const uint8_t* fill,
                 Stream stream);

void move_sites(const int32_t* indices, int64_t count, const Move& move, int32_t* moved, uint64_t* keys,
                int32_t* rows, int32_t* fault, Stream stream);

void put_sites(const int32_t* indices, const void* features, int item_bytes, int64_t count,
               const SiteImages& images, void* out, int32_t* fault, Stream stream);

void mark_active(const ChannelImages& images, double threshold, bool absolute, uint8_t* marks, Stream stream);

void cells_of_points(const Axes& axes, const Events& events, int64_t points, Outside outside, uint64_t* keys,
                     int32_t* rows, int32_t* fault, Stream stream);

void reduce_groups(const Groups& groups, const Items& in, int64_t columns, Reduction reduction, float* out,
                   int64_t out_stride, Stream stream);

void labels_of_largest(const Groups& groups, const int64_t* label, const Items& weight, int64_t stride,
                       int64_t* out, Stream stream);

void labels_of_majority(const Groups& groups, const int64_t* label, int64_t* out, Stream stream);

}  // namespace hepfeed::device
