// What kernel maps are made of, and where they are written to.  Arrays are borrowed.
#pragma once

#include <cstdint>

#include "kernels/site_grid.h"

namespace hepfeed::device {

// Of a submanifold map.
struct Neighbourhood {
  const int64_t* keys;     // (sites) of the inputs, rising
  const int64_t* outputs;  // (sites) of the outputs by row; the same array where rows are sorted
  int32_t sites;
  bool halved;  // rows are sorted: taps before the centre are searched, else all
};

struct PairArrays {
  int32_t *in_maps, *out_maps, *back_in, *back_out;  // (pairs); no back where rows are sorted
  int64_t pairs;
};

// Of another map.
struct Reach {
  SiteRows inputs;
  SiteGrid outputs;
  KernelTaps taps;
};

}  // namespace hepfeed::device
