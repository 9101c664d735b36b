// The bodies of Products, compiled once for each instruction set: see vec.h.  Who includes this defines
// HEPFEED_VEC, a template of vec.h, and HEPFEED_TARGET.
//
// A tile of sums stays in registers while the depth of a product runs: tall and narrow or low and wide, such
// that loads are fewer than multiplications and more sums are on their way than an addition takes cycles.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "cpu/products.h"
#include "cpu/vec.h"

namespace hepfeed {
namespace {

// Most rows of a tile of `vectors` vectors: what leaves registers for a row of the panel and a broadcast
// item.
template <class Vec>
constexpr size_t tallest(size_t vectors) {
  constexpr size_t free = Vec::kRegisters - 2;
  return std::min<size_t>((free - vectors) / vectors, 12);
}

template <class Vec>
constexpr size_t widest() {
  return Vec::kRegisters >= 32 ? 4 : 2;
}

template <class T>
struct Kernels {
  using Vec = HEPFEED_VEC<T>;
  using V = typename Vec::V;
  static constexpr size_t kLanes = Vec::kLanes;

  // ---- tiles; steps are folds, not loops, so that every sum is a register from the beginning

  template <size_t... C>
  HEPFEED_TARGET HEPFEED_FORCE static void clear(V* sum, std::index_sequence<C...>) {
    ((sum[C] = Vec::zero()), ...);
  }

  template <size_t... C>
  HEPFEED_TARGET HEPFEED_FORCE static void load(V* to, const T* from, std::index_sequence<C...>) {
    ((to[C] = Vec::load(from + C * kLanes)), ...);
  }

  template <size_t... C>
  HEPFEED_TARGET HEPFEED_FORCE static void store(T* to, const V* from, std::index_sequence<C...>) {
    (Vec::store(to + C * kLanes, from[C]), ...);
  }

  template <size_t... C>
  HEPFEED_TARGET HEPFEED_FORCE static void add_product(V* sum, T item, const V* factor,
                                                       std::index_sequence<C...>) {
    const V all = Vec::broadcast(item);
    ((sum[C] = Vec::fma(all, factor[C], sum[C])), ...);
  }

  template <size_t... C>
  HEPFEED_TARGET HEPFEED_FORCE static void add_to(const T* base, const V* sum, T* to,
                                                  std::index_sequence<C...>) {
    (Vec::store(to + C * kLanes, Vec::add(Vec::load(base + C * kLanes), sum[C])), ...);
  }

  // Opaque, so that the places of several rows are not computed as vectors and taken apart again.
  HEPFEED_FORCE static const T* row_of(const T* in, size_t in_stride, int32_t row) {
    const T* at = in + static_cast<size_t>(row) * in_stride;
    asm("" : "+r"(at));
    return at;
  }

  template <size_t... R, class Columns>
  HEPFEED_TARGET HEPFEED_FORCE static void step(V (*sum)[Columns::size()], const T* const* rows, size_t k,
                                                const T* panel, Columns columns) {
    V factor[Columns::size()];
    load(factor, panel, columns);
    (add_product(sum[R], rows[R][k], factor, columns), ...);
  }

  template <size_t... R, class Columns>
  HEPFEED_TARGET static void multiply_tile(const T* in, size_t in_stride, const int32_t* in_rows,
                                           const int32_t* out_rows, const T* panel, size_t depth,
                                           const Sums<T>& to, std::index_sequence<R...>, Columns columns) {
    constexpr size_t kWidth = Columns::size();
    V sum[sizeof...(R)][kWidth];
    const T* rows[sizeof...(R)];
    ((rows[R] = row_of(in, in_stride, in_rows[R])), ...);
    (clear(sum[R], columns), ...);
    // Four at a time: the end of few steps is foreseen.
    size_t k = 0;
    for (; k + 4 <= depth; k += 4, panel += 4 * kWidth * kLanes) {
      step<R...>(sum, rows, k, panel, columns);
      step<R...>(sum, rows, k + 1, panel + kWidth * kLanes, columns);
      step<R...>(sum, rows, k + 2, panel + 2 * kWidth * kLanes, columns);
      step<R...>(sum, rows, k + 3, panel + 3 * kWidth * kLanes, columns);
    }
    for (; k < depth; ++k, panel += kWidth * kLanes) step<R...>(sum, rows, k, panel, columns);
    (add_to(to.base_of(out_rows[R]), sum[R], to.sums_of(out_rows[R]), columns), ...);
  }

  // Depths of a few: the panel stays in registers, and pairs pass one by one.
  template <size_t... D, class Columns>
  HEPFEED_TARGET static void multiply_shallow(const T* in, size_t in_stride, const int32_t* in_rows,
                                              const int32_t* out_rows, size_t count, const T* panel,
                                              const Sums<T>& to, std::index_sequence<D...>, Columns columns) {
    V factor[sizeof...(D)][Columns::size()];
    (load(factor[D], panel + D * Columns::size() * kLanes, columns), ...);
    const Sums<T> here = to;  // in registers, as what is stored might lie in it for all that is known
    for (size_t p = 0; p < count; ++p) {
      const T* row = in + static_cast<size_t>(in_rows[p]) * in_stride;
      V sum[Columns::size()];
      load(sum, here.base_of(out_rows[p]), columns);
      (add_product(sum, row[D], factor[D], columns), ...);
      store(here.sums_of(out_rows[p]), sum, columns);
    }
  }

  template <size_t... R, class Columns>
  HEPFEED_TARGET static void outer_tile(const T* left, size_t left_stride, const int32_t* left_rows,
                                        const T* right, size_t right_stride, const int32_t* right_rows,
                                        size_t count, T* sums, size_t sums_stride, std::index_sequence<R...>,
                                        Columns columns) {
    V sum[sizeof...(R)][Columns::size()];
    (clear(sum[R], columns), ...);
    for (size_t p = 0; p < count; ++p) {
      const T* items = left + static_cast<size_t>(left_rows[p]) * left_stride;
      V factor[Columns::size()];
      load(factor, right + static_cast<size_t>(right_rows[p]) * right_stride, columns);
      (add_product(sum[R], items[R], factor, columns), ...);
    }
    (add_to(sums + R * sums_stride, sum[R], sums + R * sums_stride, columns), ...);
  }

  // ---- tiles of about one height: a low one would wait for its few sums

  template <size_t Height, size_t Vectors>
  static void multiply_rows(const T* in, size_t in_stride, const int32_t* in_rows, const int32_t* out_rows,
                            const T* panel, size_t depth, const Sums<T>& to) {
    multiply_tile(in, in_stride, in_rows, out_rows, panel, depth, to, std::make_index_sequence<Height>(),
                  std::make_index_sequence<Vectors>());
  }

  template <size_t Height, size_t Vectors>
  static void outer_rows(const T* left, size_t left_stride, const int32_t* left_rows, const T* right,
                         size_t right_stride, const int32_t* right_rows, size_t count, T* sums,
                         size_t sums_stride) {
    outer_tile(left, left_stride, left_rows, right, right_stride, right_rows, count, sums, sums_stride,
               std::make_index_sequence<Height>(), std::make_index_sequence<Vectors>());
  }

  using MultiplyRows = decltype(&multiply_rows<1, 1>);
  using OuterRows = decltype(&outer_rows<1, 1>);

  template <size_t Vectors, size_t... H>
  static constexpr std::array<MultiplyRows, sizeof...(H)> multiply_heights(std::index_sequence<H...>) {
    return {&multiply_rows<H + 1, Vectors>...};
  }
  template <size_t Vectors, size_t... H>
  static constexpr std::array<OuterRows, sizeof...(H)> outer_heights(std::index_sequence<H...>) {
    return {&outer_rows<H + 1, Vectors>...};
  }

  template <size_t Vectors>
  static void multiply_panel(const T* in, size_t in_stride, const int32_t* in_rows, const int32_t* out_rows,
                             size_t count, const T* panel, size_t depth, const Sums<T>& to) {
    const auto shallow = [&](auto depths) {
      multiply_shallow(in, in_stride, in_rows, out_rows, count, panel, to, depths,
                       std::make_index_sequence<Vectors>());
    };
    if (depth == 1) return shallow(std::make_index_sequence<1>());
    if (depth == 2) return shallow(std::make_index_sequence<2>());
    if (depth == 3) return shallow(std::make_index_sequence<3>());
    if (depth == 4) return shallow(std::make_index_sequence<4>());
    constexpr size_t most = tallest<Vec>(Vectors);
    static constexpr auto heights = multiply_heights<Vectors>(std::make_index_sequence<most>());
    size_t tiles = (count + most - 1) / most;
    for (size_t p = 0, height; p < count; p += height, --tiles) {
      height = (count - p + tiles - 1) / tiles;
      heights[height - 1](in, in_stride, in_rows + p, out_rows + p, panel, depth, to);
    }
  }

  template <size_t Vectors>
  static void outer_panel(const T* left, size_t left_stride, const int32_t* left_rows, const T* right,
                          size_t right_stride, const int32_t* right_rows, size_t count, T* sums,
                          size_t sums_stride, size_t height) {
    constexpr size_t most = tallest<Vec>(Vectors);
    static constexpr auto heights = outer_heights<Vectors>(std::make_index_sequence<most>());
    size_t tiles = (height + most - 1) / most;
    for (size_t i = 0, rows; i < height; i += rows, --tiles) {
      rows = (height - i + tiles - 1) / tiles;
      heights[rows - 1](left + i, left_stride, left_rows, right, right_stride, right_rows, count,
                        sums + i * sums_stride, sums_stride);
    }
  }

  // Less than 2 * Part items, by halves: a loop would be made one of vectors, with all that belongs to it.
  template <size_t Part>
  HEPFEED_TARGET HEPFEED_FORCE static void copy_rest(const T* from, size_t count, T* to) {
    if constexpr (Part > 0) {
      const size_t here = count & Part;
      if (here) std::memcpy(to, from, Part * sizeof(T));
      copy_rest<Part / 2>(from + here, count - here, to + here);
    }
  }

  // ---- what Products has

  HEPFEED_TARGET static void gather(const T* in, size_t in_stride, const int32_t* rows, size_t count,
                                    size_t width, T* to, size_t to_stride) {
    const size_t whole = width / kLanes * kLanes;
    for (size_t p = 0; p < count; ++p, to += to_stride) {
      const T* from = in + static_cast<size_t>(rows[p]) * in_stride;
      for (size_t k = 0; k < whole; k += kLanes) Vec::store(to + k, Vec::load(from + k));
      copy_rest<kLanes / 2>(from + whole, width - whole, to + whole);
    }
  }

  static void multiply(const T* in, size_t in_stride, const int32_t* in_rows, const int32_t* out_rows,
                       size_t count, const T* panel, size_t depth, size_t vectors, const Sums<T>& to) {
    const auto run = [&](auto run_panel) {
      run_panel(in, in_stride, in_rows, out_rows, count, panel, depth, to);
    };
    if (vectors == 1) return run(multiply_panel<1>);
    if (vectors == 2) return run(multiply_panel<2>);
    if constexpr (widest<Vec>() > 2) {
      if (vectors == 3) return run(multiply_panel<3>);
      run(multiply_panel<4>);
    }
  }

  static void outer(const T* left, size_t left_stride, const int32_t* left_rows, const T* right,
                    size_t right_stride, const int32_t* right_rows, size_t count, T* sums, size_t sums_stride,
                    size_t height, size_t vectors) {
    size_t panels = (vectors + widest<Vec>() - 1) / widest<Vec>();
    for (size_t v = 0, width; v < vectors; v += width, --panels) {
      width = (vectors - v + panels - 1) / panels;
      const auto run = [&](auto run_panel) {
        run_panel(left, left_stride, left_rows, right + v * kLanes, right_stride, right_rows, count,
                  sums + v * kLanes, sums_stride, height);
      };
      if (width == 1) run(outer_panel<1>);
      if (width == 2) run(outer_panel<2>);
      if constexpr (widest<Vec>() > 2) {
        if (width == 3) run(outer_panel<3>);
        if (width == 4) run(outer_panel<4>);
      }
    }
  }
};

template <class T>
constexpr Products<T> kProducts{Kernels<T>::kLanes, widest<HEPFEED_VEC<T>>(), &Kernels<T>::gather,
                                &Kernels<T>::multiply, &Kernels<T>::outer};

}  // namespace
}  // namespace hepfeed
