#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "groups/group_sums.hpp"
#include "groups/row_shuffle.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

void shuffle(const py::array& rows, const py::array& starts, std::uint64_t seed,
             std::uint64_t stream, std::uint64_t first_group, py::array& orders, unsigned threads) {
  const auto row_numbers = input_row<std::uint32_t>("rows", rows);
  const auto bounds = input_row<std::uint64_t>("starts", starts);
  auto* const out = output<std::uint32_t>("orders", orders, {kAny, rows.size()});
  const auto layers = static_cast<std::size_t>(orders.shape(0));
  const py::gil_scoped_release release;
  shuffle_rows(row_numbers, bounds, {seed, stream, first_group}, layers, out, threads);
}

void sum_changes(const py::array& experts, std::size_t num_experts, std::size_t counted_slots,
                 const std::vector<std::pair<std::uint32_t, std::uint32_t>>& layer_pairs,
                 const py::array& rows, const py::array& starts, const py::array& expert,
                 const py::array& pairs, py::array& pair_changes, py::array& layer_changes,
                 unsigned threads) {
  const ExpertView view = view_of(experts);
  const py::ssize_t side = extent_of("num_experts", num_experts);
  const auto layers = static_cast<py::ssize_t>(view.layers);
  const auto count = static_cast<py::ssize_t>(layer_pairs.size());
  const std::span<const std::uint64_t> bounds = input_row<std::uint64_t>("starts", starts);
  if (bounds.empty()) throw std::invalid_argument("starts: expected at least 1 number");
  const auto groups = static_cast<py::ssize_t>(bounds.size()) - 1;
  const py::ssize_t entries = extent_of("starts", bounds.back());
  const bool by_layer = rows.ndim() == 2;
  const auto* const row_numbers =
      input<std::uint32_t>("rows", rows, by_layer ? Shape{layers, entries} : Shape{entries});
  const WholeCounts whole{input<std::uint64_t>("expert", expert, {layers, side}),
                          input<std::uint64_t>("pairs", pairs, {count, side, side})};
  const SumChanges changes{output<double>("pair_changes", pair_changes, {groups, count}),
                           output<double>("layer_changes", layer_changes, {groups, layers})};
  std::vector<LayerPair> plan;
  plan.reserve(layer_pairs.size());
  for (const auto& [source, target] : layer_pairs) plan.push_back({source, target});
  const GroupedRows grouped{row_numbers, by_layer ? static_cast<std::size_t>(entries) : 0, bounds};
  CountOptions options;
  options.threads = threads;
  options.counted_slots = counted_slots;
  const py::gil_scoped_release release;
  sum_changes_without_groups(view, num_experts, plan, grouped, whole, changes, options);
}

}  // namespace

void bind_groups(py::module_& module) {
  module.def("shuffle_rows", &shuffle, py::kw_only(), py::arg("rows").noconvert(),
             py::arg("starts").noconvert(), py::arg("seed"), py::arg("stream"),
             py::arg("first_group"), py::arg("orders").noconvert(), py::arg("threads"),
             "Write `rows`, permuted within groups, with a new permutation for each layer, to "
             "`orders` [L, n].");
  module.def("sum_changes_without_groups", &sum_changes, py::arg("experts").noconvert(),
             py::kw_only(), py::arg("num_experts"), py::arg("counted_slots"),
             py::arg("layer_pairs"), py::arg("rows").noconvert(), py::arg("starts").noconvert(),
             py::arg("expert").noconvert(), py::arg("pairs").noconvert(),
             py::arg("pair_changes").noconvert(), py::arg("layer_changes").noconvert(),
             py::arg("threads"),
             "Write what the sums of n log2 n change by without each group, [G, P] and [G, L].");
}

}  // namespace routestats::bindings
