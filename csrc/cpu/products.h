// Products of listed rows: the inner loops of the sparse convolution, for each instruction set.
//
// Widths are whole vectors; who calls pads narrower matrices with zeros.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hepfeed {

// Sums of rows first, first + 1, ..., and the rows that they are added to, which may be the sums themselves,
// or one row for all with a stride of 0.  Strides are of rows, in items.
template <class T>
struct Sums {
  const T* base;
  size_t base_stride;
  T* sums;
  size_t stride;
  int32_t first;

  const T* base_of(int32_t row) const { return base + static_cast<size_t>(row - first) * base_stride; }
  T* sums_of(int32_t row) const { return sums + static_cast<size_t>(row - first) * stride; }
};

template <class T>
struct Products {
  size_t lanes;    // items of a vector
  size_t vectors;  // of the widest panel

  // Copies the first `width` items of listed rows.
  void (*gather)(const T* in, size_t in_stride, const int32_t* rows, size_t count, size_t width, T* to,
                 size_t to_stride);

  // For each of `count` pairs: sums of out_rows[p] = base of out_rows[p] + in[in_rows[p]] panel.  `panel` is
  // (depth, vectors * lanes); `out_rows` are all different.  The terms of a product are added one by one, in
  // order.
  void (*multiply)(const T* in, size_t in_stride, const int32_t* in_rows, const int32_t* out_rows,
                   size_t count, const T* panel, size_t depth, size_t vectors, const Sums<T>& to);

  // sums[i, :] += the sum over `count` pairs p of left[left_rows[p], i] * right[right_rows[p], :], for
  // `height` rows i of `vectors` vectors.
  void (*outer)(const T* left, size_t left_stride, const int32_t* left_rows, const T* right,
                size_t right_stride, const int32_t* right_rows, size_t count, T* sums, size_t sums_stride,
                size_t height, size_t vectors);
};

template <class T>
const Products<T>& baseline_products();
template <class T>
const Products<T>& avx2_products();
template <class T>
const Products<T>& avx512_products();

// Those of the instruction set in use.
template <class T>
const Products<T>& products();

}  // namespace hepfeed
