#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "pairs/pair_counts.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

void count(const py::array& experts, std::size_t num_experts, std::size_t counted_slots,
           const std::vector<std::pair<std::uint32_t, std::uint32_t>>& layer_pairs,
           py::array& expert, py::array& pairs, unsigned threads, std::uint64_t first_token,
           const std::optional<py::array>& row_order, const std::optional<std::string>& method,
           const std::optional<std::string>& isa, std::size_t block_tokens) {
  const ExpertView view = view_of(experts);
  const py::ssize_t side = extent_of("num_experts", num_experts);
  const CountTables tables{
      output<std::uint64_t>("expert", expert, {experts.shape(1), side}),
      output<std::uint64_t>("pairs", pairs,
                            {static_cast<py::ssize_t>(layer_pairs.size()), side, side})};
  std::vector<LayerPair> plan;
  plan.reserve(layer_pairs.size());
  for (const auto& [source, target] : layer_pairs) plan.push_back({source, target});
  CountOptions options{.threads = threads,
                       .counted_slots = counted_slots,
                       .first_token = first_token,
                       .method = choice_named("method", kMethods, method),
                       .isa = isa_named(isa),
                       .block_tokens = block_tokens};
  if (row_order) {
    options.row_order = {input<std::uint32_t>("row_order", *row_order, {experts.shape(1), kAny}),
                         static_cast<std::size_t>(row_order->shape(1))};
  }
  const py::gil_scoped_release release;
  count_pairs(view, num_experts, plan, tables, options);
}

}  // namespace

void bind_counts(py::module_& module) {
  module.def("count_pairs", &count, py::arg("experts").noconvert(), py::kw_only(),
             py::arg("num_experts"), py::arg("counted_slots"), py::arg("layer_pairs"),
             py::arg("expert").noconvert(), py::arg("pairs").noconvert(), py::arg("threads"),
             py::arg("first_token") = 0, py::arg("row_order").noconvert() = py::none(),
             py::arg("method") = py::none(), py::arg("isa") = py::none(),
             py::arg("block_tokens") = 0,
             "Add the counts of a [T, L, K] integer array to `expert` and `pairs`, in place; with "
             "`row_order` [L, N], of row row_order[l, n] as token n of layer l.");
  module.def(
      "choose_pair_method",
      [](std::size_t layers, std::size_t experts, std::size_t slots, std::size_t pairs,
         const std::optional<std::string>& isa) {
        if (layers == 0 || experts == 0 || slots == 0 || pairs == 0) {
          throw std::invalid_argument("layers, experts, slots, pairs: expected at least 1");
        }
        return name_of(
            choose_method({layers, experts, slots, pairs}, isa_named(isa).value_or(best_isa())));
      },
      py::kw_only(), py::arg("layers"), py::arg("experts"), py::arg("slots"), py::arg("pairs"),
      py::arg("isa") = py::none(),
      "The method that count_pairs takes for this number of layers, experts, slots and pairs.");
  py::list methods;
  for (const Method method : kMethods) methods.append(name_of(method));
  module.attr("PAIR_METHODS") = py::tuple(methods);
}

}  // namespace routestats::bindings
