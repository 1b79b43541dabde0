#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/expert_argument.hpp"
#include "groups/group_sums.hpp"
#include "groups/row_shuffle.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

template <class Item>
using Dense = py::array_t<Item, py::array::c_style>;

template <class Item>
std::span<const Item> span_of(const char* name, const Dense<Item>& array) {
  if (array.ndim() != 1) throw py::value_error(std::string(name) + ": expected 1 dimension");
  return {array.data(), static_cast<std::size_t>(array.size())};
}

void shuffle(const Dense<std::uint32_t>& rows, const Dense<std::uint64_t>& starts,
             std::uint64_t seed, std::uint64_t stream, std::uint64_t first_class,
             Dense<std::uint32_t>& orders, unsigned threads) {
  const ClassedRows classed{span_of("rows", rows), span_of("starts", starts)};
  if (orders.ndim() != 2 || orders.shape(1) != rows.size()) {
    throw py::value_error("orders: expected shape [L, rows]");
  }
  std::uint32_t* out = orders.mutable_data();
  const auto layers = static_cast<std::size_t>(orders.shape(0));
  const py::gil_scoped_release release;
  shuffle_rows(classed, {seed, stream, first_class}, layers, out, threads);
}

void sum_changes(const py::array& experts, std::size_t num_experts, std::size_t counted_slots,
                 const std::vector<std::pair<std::uint32_t, std::uint32_t>>& layer_pairs,
                 const Dense<std::uint32_t>& rows, const Dense<std::uint64_t>& starts,
                 const Dense<std::uint64_t>& expert, const Dense<std::uint64_t>& pairs,
                 Dense<double>& pair_changes, Dense<double>& layer_changes, unsigned threads) {
  const ExpertView view = view_of(experts);
  const auto side = static_cast<py::ssize_t>(num_experts);
  const auto layers = static_cast<py::ssize_t>(view.layers);
  const auto count = static_cast<py::ssize_t>(layer_pairs.size());
  const std::span<const std::uint64_t> bounds = span_of("starts", starts);
  if (bounds.empty()) throw py::value_error("starts: expected at least 1 number");
  const auto groups = static_cast<py::ssize_t>(bounds.size()) - 1;
  const auto entries = static_cast<py::ssize_t>(bounds.back());
  if (rows.ndim() == 2) {
    check_shape("rows", rows, {layers, entries});
  } else {
    check_shape("rows", rows, {entries});
  }
  check_shape("expert", expert, {layers, side});
  check_shape("pairs", pairs, {count, side, side});
  check_shape("pair_changes", pair_changes, {groups, count});
  check_shape("layer_changes", layer_changes, {groups, layers});
  std::vector<LayerPair> plan;
  plan.reserve(layer_pairs.size());
  for (const auto& [source, target] : layer_pairs) plan.push_back({source, target});
  const GroupedRows grouped{rows.data(), rows.ndim() == 2 ? static_cast<std::size_t>(entries) : 0,
                            bounds};
  const WholeCounts whole{expert.data(), pairs.data()};
  const SumChanges changes{pair_changes.mutable_data(), layer_changes.mutable_data()};
  CountOptions options;
  options.threads = threads;
  options.counted_slots = counted_slots;
  const py::gil_scoped_release release;
  sum_changes_without_groups(view, num_experts, plan, grouped, whole, changes, options);
}

}  // namespace

void bind_groups(py::module_& module) {
  // noconvert: a converted output would be a copy, and the result would be lost with it.
  module.def("shuffle_rows", &shuffle, py::kw_only(), py::arg("rows").noconvert(),
             py::arg("starts").noconvert(), py::arg("seed"), py::arg("stream"),
             py::arg("first_class"), py::arg("orders").noconvert(), py::arg("threads"),
             "Write `rows`, permuted within classes and anew for each layer, to `orders` [L, n].");
  module.def("sum_changes_without_groups", &sum_changes, py::arg("experts").noconvert(),
             py::kw_only(), py::arg("num_experts"), py::arg("counted_slots"),
             py::arg("layer_pairs"), py::arg("rows").noconvert(), py::arg("starts").noconvert(),
             py::arg("expert").noconvert(), py::arg("pairs").noconvert(),
             py::arg("pair_changes").noconvert(), py::arg("layer_changes").noconvert(),
             py::arg("threads"),
             "Write what the sums of n log2 n change by without each group, [G, P] and [G, L].");
}

}  // namespace routestats::bindings
