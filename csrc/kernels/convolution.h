// One sparse convolution along a plan, in memory of the device.
#pragma once

#include <cstdint>

namespace hepfeed::device {

constexpr int kTileRows = 64;  // positions whose taps are joined, so that blocks of them can pass over others

// out[rows[p]] = bias + sum over taps k with i = table[k][p] >= 0 of weight[:, k] features[i], for each
// position p. T is float, double, Half or BFloat16; sums are double for double and else float.  Borrowed.
template <class T>
struct Convolution {
  const T* features;          // (in_rows, groups * depth)
  const T* weight;            // (groups * width, taps, depth)
  const T* bias;              // (groups * width), or null
  const int32_t* table;       // (taps, positions): a row of the features, or -1
  const int32_t* rows;        // (positions): each row of the output once
  const uint32_t* tile_taps;  // (tiles, words): taps that some position of a tile has, 32 in a word
  T* out;                     // (positions, groups * width)
  int32_t positions, taps, words;
  int32_t depth, width, groups;  // depth and width: channels of one group
};

}  // namespace hepfeed::device
