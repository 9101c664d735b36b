// Bindings of the kernels on rows: lists, batch normalisation, dense images.
#include <string>
#include <vector>

#include "cuda/address.h"
#include "cuda/batch_norm.h"
#include "cuda/bindings.h"
#include "cuda/densify.h"
#include "cuda/rows.h"

namespace hepfeed::device {
namespace {

using Address = uintptr_t;
using Unlocked = py::call_guard<py::gil_scoped_release>;

ListArrays lists_at(Address starts, Address columns, int64_t count, int64_t entries) {
  return {at<const int64_t>(starts), at<const int32_t>(columns), count, entries};
}

ChannelArrays channels_at(Address mean, Address inverse, Address weight, Address bias, bool relu) {
  return {at<const void>(mean), at<const void>(inverse), at<const void>(weight), at<const void>(bias), relu};
}

void bind_lists(py::module_& module) {
  module.def(
      "look_at_pairs",
      [](Address targets, Address sources, int64_t pairs, int64_t target_rows, int64_t source_rows,
         Address found, Address stream) {
        look_at_pairs(at<const int32_t>(targets), at<const int32_t>(sources), pairs, target_rows, source_rows,
                      at<int>(found), at<void>(stream));
      },
      py::arg("targets"), py::arg("sources"), py::arg("pairs"), py::arg("target_rows"),
      py::arg("source_rows"), py::arg("found"), py::arg("stream"), Unlocked());
  module.def(
      "find_starts",
      [](Address sorted, bool wide, int64_t pairs, int64_t lists, Address starts, Address stream) {
        if (wide)
          find_starts(at<const uint64_t>(sorted), pairs, lists, at<int64_t>(starts), at<void>(stream));
        else
          find_starts(at<const int32_t>(sorted), pairs, lists, at<int64_t>(starts), at<void>(stream));
      },
      py::arg("sorted"), py::arg("wide"), py::arg("pairs"), py::arg("lists"), py::arg("starts"),
      py::arg("stream"), Unlocked());
}

void bind_folds(py::module_& module) {
  module.def(
      "row_sum_bytes",
      [](const std::string& type, int64_t channels, int64_t entries) {
        return row_sum_bytes(float_type(type), channels, entries);
      },
      py::arg("type"), py::arg("channels"), py::arg("entries"));
  module.def(
      "row_max_bytes",
      [](const std::string& type, int64_t channels, int64_t entries) {
        return row_max_bytes(float_type(type), channels, entries);
      },
      py::arg("type"), py::arg("channels"), py::arg("entries"));
  module.def(
      "row_sum",
      [](const std::string& type, Address features, int64_t rows, int64_t channels, Address starts,
         Address columns, int64_t lists, int64_t entries, Address coefficients, Address places, Address out,
         Address work, Address stream) {
        row_sum(float_type(type), at<const void>(features), rows, channels,
                lists_at(starts, columns, lists, entries), at<const void>(coefficients),
                at<const int32_t>(places), at<void>(out), at<void>(work), at<void>(stream));
      },
      py::arg("type"), py::arg("features"), py::arg("rows"), py::arg("channels"), py::arg("starts"),
      py::arg("columns"), py::arg("lists"), py::arg("entries"), py::arg("coefficients"), py::arg("places"),
      py::arg("out"), py::arg("work"), py::arg("stream"), Unlocked());
  module.def(
      "row_dot",
      [](const std::string& type, Address left, Address right, int64_t right_rows, int64_t channels,
         Address starts, Address columns, int64_t lists, int64_t entries, Address places, Address out,
         Address stream) {
        row_dot(float_type(type), at<const void>(left), at<const void>(right), right_rows, channels,
                lists_at(starts, columns, lists, entries), at<const int32_t>(places), at<void>(out),
                at<void>(stream));
      },
      py::arg("type"), py::arg("left"), py::arg("right"), py::arg("right_rows"), py::arg("channels"),
      py::arg("starts"), py::arg("columns"), py::arg("lists"), py::arg("entries"), py::arg("places"),
      py::arg("out"), py::arg("stream"), Unlocked());
  module.def(
      "row_max",
      [](const std::string& type, Address features, int64_t rows, int64_t channels, Address starts,
         Address columns, int64_t lists, int64_t entries, Address out, Address argmax, Address work,
         Address stream) {
        row_max(float_type(type), at<const void>(features), rows, channels,
                lists_at(starts, columns, lists, entries), at<void>(out), at<int32_t>(argmax), at<void>(work),
                at<void>(stream));
      },
      py::arg("type"), py::arg("features"), py::arg("rows"), py::arg("channels"), py::arg("starts"),
      py::arg("columns"), py::arg("lists"), py::arg("entries"), py::arg("out"), py::arg("argmax"),
      py::arg("work"), py::arg("stream"), Unlocked());
  module.def(
      "row_pick",
      [](const std::string& type, Address features, int64_t rows, int64_t channels, Address argmax,
         int64_t out_rows, Address out, Address stream) {
        row_pick(float_type(type), at<const void>(features), rows, channels, at<const int32_t>(argmax),
                 out_rows, at<void>(out), at<void>(stream));
      },
      py::arg("type"), py::arg("features"), py::arg("rows"), py::arg("channels"), py::arg("argmax"),
      py::arg("out_rows"), py::arg("out"), py::arg("stream"), Unlocked());
  module.def(
      "row_put",
      [](const std::string& type, Address features, Address argmax, int64_t rows, int64_t channels,
         Address starts, Address columns, int64_t lists, int64_t entries, Address out, Address work,
         Address stream) {
        row_put(float_type(type), at<const void>(features), at<const int32_t>(argmax), rows, channels,
                lists_at(starts, columns, lists, entries), at<void>(out), at<void>(work), at<void>(stream));
      },
      py::arg("type"), py::arg("features"), py::arg("argmax"), py::arg("rows"), py::arg("channels"),
      py::arg("starts"), py::arg("columns"), py::arg("lists"), py::arg("entries"), py::arg("out"),
      py::arg("work"), py::arg("stream"), Unlocked());
}

void bind_batch_norm(py::module_& module) {
  module.def(
      "batch_norm_bytes",
      [](const std::string& type, int64_t rows, int64_t channels) {
        return batch_norm_bytes(float_type(type), rows, channels);
      },
      py::arg("type"), py::arg("rows"), py::arg("channels"));
  module.def(
      "batch_statistics",
      [](const std::string& type, Address features, int64_t rows, int64_t channels, double eps, Address mean,
         Address inverse, Address variance, Address work, Address stream) {
        batch_statistics(float_type(type), at<const void>(features), rows, channels, eps, at<void>(mean),
                         at<void>(inverse), at<void>(variance), at<void>(work), at<void>(stream));
      },
      py::arg("type"), py::arg("features"), py::arg("rows"), py::arg("channels"), py::arg("eps"),
      py::arg("mean"), py::arg("inverse"), py::arg("variance"), py::arg("work"), py::arg("stream"),
      Unlocked());
  module.def(
      "given_statistics",
      [](const std::string& type, Address running_mean, Address running_variance, int64_t channels,
         double eps, Address mean, Address inverse, Address variance, Address stream) {
        given_statistics(float_type(type), at<const void>(running_mean), at<const void>(running_variance),
                         channels, eps, at<void>(mean), at<void>(inverse), at<void>(variance),
                         at<void>(stream));
      },
      py::arg("type"), py::arg("running_mean"), py::arg("running_variance"), py::arg("channels"),
      py::arg("eps"), py::arg("mean"), py::arg("inverse"), py::arg("variance"), py::arg("stream"),
      Unlocked());
  module.def(
      "batch_norm",
      [](const std::string& type, Address features, int64_t rows, int64_t channels, Address mean,
         Address inverse, Address weight, Address bias, bool relu, Address out, Address stream) {
        batch_norm(float_type(type), at<const void>(features), rows, channels,
                   channels_at(mean, inverse, weight, bias, relu), at<void>(out), at<void>(stream));
      },
      py::arg("type"), py::arg("features"), py::arg("rows"), py::arg("channels"), py::arg("mean"),
      py::arg("inverse"), py::arg("weight"), py::arg("bias"), py::arg("relu"), py::arg("out"),
      py::arg("stream"), Unlocked());
  module.def(
      "batch_norm_grad",
      [](const std::string& type, Address grad, Address features, int64_t rows, int64_t channels,
         Address mean, Address inverse, Address weight, Address bias, bool relu, bool of_batch, Address out,
         Address weight_grad, Address bias_grad, Address slopes, Address work, Address stream) {
        batch_norm_grad(float_type(type), at<const void>(grad), at<const void>(features), rows, channels,
                        channels_at(mean, inverse, weight, bias, relu), of_batch, at<void>(out),
                        at<void>(weight_grad), at<void>(bias_grad), at<void>(slopes), at<void>(work),
                        at<void>(stream));
      },
      py::arg("type"), py::arg("grad"), py::arg("features"), py::arg("rows"), py::arg("channels"),
      py::arg("mean"), py::arg("inverse"), py::arg("weight"), py::arg("bias"), py::arg("relu"),
      py::arg("of_batch"), py::arg("out"), py::arg("weight_grad"), py::arg("bias_grad"), py::arg("slopes"),
      py::arg("work"), py::arg("stream"), Unlocked());
}

void bind_densify(py::module_& module) {
  module.def(
      "densify",
      [](Address features, Address indices, int64_t sites, const std::vector<int64_t>& shape, int64_t events,
         int64_t channels, size_t item, bool channels_first, Address dense, Address stream) {
        densify(at<const void>(features), at<const int32_t>(indices), sites,
                {shape, events, channels, item, channels_first}, at<void>(dense), at<void>(stream));
      },
      py::arg("features"), py::arg("indices"), py::arg("sites"), py::arg("shape"), py::arg("events"),
      py::arg("channels"), py::arg("item"), py::arg("channels_first"), py::arg("dense"), py::arg("stream"),
      Unlocked());
  module.def(
      "take_sites",
      [](Address dense, Address indices, int64_t sites, const std::vector<int64_t>& shape, int64_t events,
         int64_t channels, size_t item, bool channels_first, Address features, Address stream) {
        take_sites(at<const void>(dense), at<const int32_t>(indices), sites,
                   {shape, events, channels, item, channels_first}, at<void>(features), at<void>(stream));
      },
      py::arg("dense"), py::arg("indices"), py::arg("sites"), py::arg("shape"), py::arg("events"),
      py::arg("channels"), py::arg("item"), py::arg("channels_first"), py::arg("features"), py::arg("stream"),
      Unlocked());
}

}  // namespace

void bind_rows(py::module_& module) {
  bind_lists(module);
  bind_folds(module);
  bind_batch_norm(module);
  bind_densify(module);
}

}  // namespace hepfeed::device
