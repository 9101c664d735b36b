// Bindings of the steps of the feed on batches.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/address.h"
#include "cuda/bindings.h"
#include "cuda/images.h"

namespace hepfeed::device {
namespace {

using Released = py::call_guard<py::gil_scoped_release>;
using Array = std::tuple<uintptr_t, int>;  // address, and number of the type
using Lengths = std::vector<int64_t>;

Number number_of(int type) {
  if (type < 0 || type > static_cast<int>(Number::b8)) throw std::invalid_argument("there is no such type");
  return static_cast<Number>(type);
}

Items items_of(const Array& array) {
  return {at<const void>(std::get<0>(array)), number_of(std::get<1>(array))};
}

Results results_of(const Array& array) {
  return {at<void>(std::get<0>(array)), number_of(std::get<1>(array))};
}

// (offsets, events, items of a row).
using EventsTuple = std::tuple<uintptr_t, int64_t, int64_t>;

Events events_of(const EventsTuple& events) {
  return {at<const int64_t>(std::get<0>(events)), std::get<1>(events), std::get<2>(events)};
}

// (seed, step, epoch, file and row of the events).
using KeyTuple = std::tuple<uint64_t, uint64_t, uint64_t, uintptr_t>;

Key key_of(const KeyTuple& key) {
  return {std::get<0>(key), std::get<1>(key), std::get<2>(key), at<const int64_t>(std::get<3>(key))};
}

void copy_lengths(const Lengths& lengths, int64_t* out) {
  if (lengths.size() > kMaxAxes) throw std::invalid_argument("images have 8 axes at most");
  std::copy(lengths.begin(), lengths.end(), out);
}

Move move_of(const Lengths& in_shape, const Lengths& out_shape, int64_t events, uintptr_t origin,
             uintptr_t reversed, uintptr_t quarters, int first, int second) {
  Move move{};
  if (in_shape.size() != out_shape.size()) throw std::invalid_argument("images have other axes");
  copy_lengths(in_shape, move.in_shape);
  copy_lengths(out_shape, move.out_shape);
  move.axes = static_cast<int32_t>(in_shape.size());
  move.first = first;
  move.second = second;
  move.events = events;
  move.origin = at<const int64_t>(origin);
  move.reversed = at<const uint8_t>(reversed);
  move.quarters = at<const uint8_t>(quarters);
  return move;
}

// (address, type, stride, low, size, bins, edges, whether the last edge is closed).
using AxisTuple = std::tuple<uintptr_t, int, int64_t, double, double, int64_t, uintptr_t, bool>;

Axes axes_of(const std::vector<AxisTuple>& tuples) {
  if (tuples.size() > kMaxAxes) throw std::invalid_argument("grids have 8 axes at most");
  Axes axes{};
  for (const auto& [data, type, stride, low, size, count, edges, closed] : tuples)
    axes.axis[axes.count++] = {at<const void>(data),   number_of(type), closed, stride, low, size, count,
                               at<const double>(edges)};
  return axes;
}

// (keys, order, starts, groups, rows, first key outside).
using GroupsTuple = std::tuple<uintptr_t, uintptr_t, uintptr_t, int64_t, int64_t, uint64_t>;

Groups groups_of(const GroupsTuple& groups) {
  const auto& [keys, order, starts, count, rows, outside] = groups;
  return {
      at<const uint64_t>(keys), at<const int32_t>(order), at<const int64_t>(starts), count, rows, outside};
}

template <class Named>
Named named(const std::string& name, const std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) throw std::invalid_argument("there is no '" + name + "'");
  return static_cast<Named>(found - names.begin());
}

void bind_draws(py::module_& module) {
  module.def(
      "draw",
      [](const EventsTuple& events, int64_t total, const KeyTuple& key, const std::string& drawn, double low,
         double high, uintptr_t out, uintptr_t stream) {
        draw(events_of(events), total, key_of(key), named<Drawn>(drawn, {"raw", "uniform", "normal"}), low,
             high, at<void>(out), at<void>(stream));
      },
      py::arg("events"), py::arg("total"), py::arg("key"), py::arg("drawn"), py::arg("low"), py::arg("high"),
      py::arg("out"), py::arg("stream"), Released());
  module.def(
      "gaussian_noise",
      [](const Array& items, const Array& out, const EventsTuple& events, int64_t total, const KeyTuple& key,
         double sigma, bool relative, bool only_active, uintptr_t stream) {
        gaussian_noise(items_of(items), results_of(out), events_of(events), total, key_of(key), sigma,
                       relative, only_active, at<void>(stream));
      },
      py::arg("items"), py::arg("out"), py::arg("events"), py::arg("total"), py::arg("key"), py::arg("sigma"),
      py::arg("relative"), py::arg("only_active"), py::arg("stream"), Released());
  module.def(
      "poisson_noise",
      [](const Array& items, const Array& out, const EventsTuple& events, int64_t total, const KeyTuple& key,
         double scale, uintptr_t fault, uintptr_t stream) {
        poisson_noise(items_of(items), results_of(out), events_of(events), total, key_of(key), scale,
                      at<int32_t>(fault), at<void>(stream));
      },
      py::arg("items"), py::arg("out"), py::arg("events"), py::arg("total"), py::arg("key"), py::arg("scale"),
      py::arg("fault"), py::arg("stream"), Released());
  module.def(
      "drop_items",
      [](uintptr_t items, uintptr_t out, int item_bytes, const EventsTuple& events, int64_t total,
         const KeyTuple& key, double probability, uintptr_t stream) {
        drop_items(at<const void>(items), at<void>(out), item_bytes, events_of(events), total, key_of(key),
                   probability, at<void>(stream));
      },
      py::arg("items"), py::arg("out"), py::arg("item_bytes"), py::arg("events"), py::arg("total"),
      py::arg("key"), py::arg("probability"), py::arg("stream"), Released());
}

void bind_numbers(py::module_& module) {
  module.def(
      "pointwise",
      [](const Array& items, const Array& out, int64_t count, uintptr_t ops, int32_t length, uintptr_t params,
         int64_t entries, int64_t run, uintptr_t rows, int64_t width, uintptr_t fault, uintptr_t stream) {
        pointwise(items_of(items), results_of(out), count,
                  {at<const int32_t>(ops), length, at<const double>(params), entries, run},
                  {at<const int64_t>(rows), width}, at<int32_t>(fault), at<void>(stream));
      },
      py::arg("items"), py::arg("out"), py::arg("count"), py::arg("ops"), py::arg("length"),
      py::arg("params"), py::arg("entries"), py::arg("run"), py::arg("rows"), py::arg("width"),
      py::arg("fault"), py::arg("stream"), Released());
  module.def(
      "cast",
      [](const Array& items, const Array& out, int64_t count, const std::string& rounding, uintptr_t fault,
         uintptr_t stream) {
        cast(items_of(items), results_of(out), count, named<Rounding>(rounding, {"exact", "nearest", "down"}),
             at<int32_t>(fault), at<void>(stream));
      },
      py::arg("items"), py::arg("out"), py::arg("count"), py::arg("rounding"), py::arg("fault"),
      py::arg("stream"), Released());
}

void bind_moves(py::module_& module) {
  module.def(
      "move_images",
      [](uintptr_t images, uintptr_t out, int unit_bytes, const Lengths& in_shape, const Lengths& out_shape,
         int64_t events, uintptr_t origin, uintptr_t reversed, uintptr_t quarters, int first, int second,
         const std::string& fill, uintptr_t stream) {
        if (fill.size() != static_cast<size_t>(unit_bytes))
          throw std::invalid_argument("the fill is not one unit");
        move_images(at<const void>(images), at<void>(out), unit_bytes,
                    move_of(in_shape, out_shape, events, origin, reversed, quarters, first, second),
                    reinterpret_cast<const uint8_t*>(fill.data()), at<void>(stream));
      },
      py::arg("images"), py::arg("out"), py::arg("unit_bytes"), py::arg("in_shape"), py::arg("out_shape"),
      py::arg("events"), py::arg("origin"), py::arg("reversed"), py::arg("quarters"), py::arg("first"),
      py::arg("second"), py::arg("fill"), py::arg("stream"), Released());
  module.def(
      "move_sites",
      [](uintptr_t indices, int64_t count, const Lengths& in_shape, const Lengths& out_shape, int64_t events,
         uintptr_t origin, uintptr_t reversed, uintptr_t quarters, int first, int second, uintptr_t moved,
         uintptr_t keys, uintptr_t rows, uintptr_t fault, uintptr_t stream) {
        move_sites(at<const int32_t>(indices), count,
                   move_of(in_shape, out_shape, events, origin, reversed, quarters, first, second),
                   at<int32_t>(moved), at<uint64_t>(keys), at<int32_t>(rows), at<int32_t>(fault),
                   at<void>(stream));
      },
      py::arg("indices"), py::arg("count"), py::arg("in_shape"), py::arg("out_shape"), py::arg("events"),
      py::arg("origin"), py::arg("reversed"), py::arg("quarters"), py::arg("first"), py::arg("second"),
      py::arg("moved"), py::arg("keys"), py::arg("rows"), py::arg("fault"), py::arg("stream"), Released());
}

void bind_cells(py::module_& module) {
  module.def(
      "put_sites",
      [](uintptr_t indices, uintptr_t features, int item_bytes, int64_t count, const Lengths& shape,
         int64_t events, int64_t channels, int64_t inner, uintptr_t out, uintptr_t fault, uintptr_t stream) {
        SiteImages images{static_cast<int32_t>(shape.size()), events, {}, channels, inner};
        copy_lengths(shape, images.shape);
        put_sites(at<const int32_t>(indices), at<const void>(features), item_bytes, count, images,
                  at<void>(out), at<int32_t>(fault), at<void>(stream));
      },
      py::arg("indices"), py::arg("features"), py::arg("item_bytes"), py::arg("count"), py::arg("shape"),
      py::arg("events"), py::arg("channels"), py::arg("inner"), py::arg("out"), py::arg("fault"),
      py::arg("stream"), Released());
  module.def(
      "mark_active",
      [](const Array& images, int64_t outer, int64_t channels, int64_t inner, double threshold, bool absolute,
         uintptr_t marks, uintptr_t stream) {
        mark_active({items_of(images), outer, channels, inner}, threshold, absolute, at<uint8_t>(marks),
                    at<void>(stream));
      },
      py::arg("images"), py::arg("outer"), py::arg("channels"), py::arg("inner"), py::arg("threshold"),
      py::arg("absolute"), py::arg("marks"), py::arg("stream"), Released());
  module.def(
      "cells_of_points",
      [](const std::vector<AxisTuple>& axes, const EventsTuple& events, int64_t points,
         const std::string& outside, uintptr_t keys, uintptr_t rows, uintptr_t fault, uintptr_t stream) {
        cells_of_points(axes_of(axes), events_of(events), points,
                        named<Outside>(outside, {"drop", "clip", "raise"}), at<uint64_t>(keys),
                        at<int32_t>(rows), at<int32_t>(fault), at<void>(stream));
      },
      py::arg("axes"), py::arg("events"), py::arg("points"), py::arg("outside"), py::arg("keys"),
      py::arg("rows"), py::arg("fault"), py::arg("stream"), Released());
}

void bind_groups(py::module_& module) {
  module.def(
      "reduce_groups",
      [](const GroupsTuple& groups, const Array& items, int64_t columns, const std::string& reduction,
         uintptr_t out, int64_t out_stride, uintptr_t stream) {
        reduce_groups(groups_of(groups), items_of(items), columns,
                      named<Reduction>(reduction, {"sum", "mean", "max"}), at<float>(out), out_stride,
                      at<void>(stream));
      },
      py::arg("groups"), py::arg("items"), py::arg("columns"), py::arg("reduction"), py::arg("out"),
      py::arg("out_stride"), py::arg("stream"), Released());
  module.def(
      "labels_of_largest",
      [](const GroupsTuple& groups, uintptr_t labels, const Array& weights, int64_t stride, uintptr_t out,
         uintptr_t stream) {
        labels_of_largest(groups_of(groups), at<const int64_t>(labels), items_of(weights), stride,
                          at<int64_t>(out), at<void>(stream));
      },
      py::arg("groups"), py::arg("labels"), py::arg("weights"), py::arg("stride"), py::arg("out"),
      py::arg("stream"), Released());
  module.def(
      "labels_of_majority",
      [](const GroupsTuple& groups, uintptr_t labels, uintptr_t out, uintptr_t stream) {
        labels_of_majority(groups_of(groups), at<const int64_t>(labels), at<int64_t>(out), at<void>(stream));
      },
      py::arg("groups"), py::arg("labels"), py::arg("out"), py::arg("stream"), Released());
}

}  // namespace

void bind_images(py::module_& module) {
  bind_draws(module);
  bind_numbers(module);
  bind_moves(module);
  bind_cells(module);
  bind_groups(module);
}

}  // namespace hepfeed::device
