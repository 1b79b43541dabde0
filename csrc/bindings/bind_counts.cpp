#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/expert_argument.hpp"
#include "pairs/pair_counts.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

using Table = py::array_t<std::uint64_t, py::array::c_style>;
using Rows = py::array_t<std::uint32_t, py::array::c_style>;

std::optional<Method> method_named(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  std::string names;
  for (const Method method : kMethods) {
    if (*name == name_of(method)) return method;
    if (!names.empty()) names += ", ";
    names += name_of(method);
  }
  throw py::value_error("method: expected one of " + names + ", got " + *name);
}

void count(const py::array& experts, std::size_t num_experts, std::size_t counted_slots,
           const std::vector<std::pair<std::uint32_t, std::uint32_t>>& layer_pairs, Table& expert,
           Table& pairs, unsigned threads, std::uint64_t first_token,
           const std::optional<Rows>& row_order, const std::optional<std::string>& method,
           const std::optional<std::string>& isa, std::size_t block_tokens) {
  const ExpertView view = view_of(experts);
  const auto side = static_cast<py::ssize_t>(num_experts);
  check_shape("expert", expert, {experts.shape(1), side});
  check_shape("pairs", pairs, {static_cast<py::ssize_t>(layer_pairs.size()), side, side});
  std::vector<LayerPair> plan;
  plan.reserve(layer_pairs.size());
  for (const auto& [source, target] : layer_pairs) plan.push_back({source, target});
  const CountTables tables{expert.mutable_data(), pairs.mutable_data()};
  CountOptions options{.threads = threads,
                       .counted_slots = counted_slots,
                       .first_token = first_token,
                       .method = method_named(method),
                       .isa = isa_named(isa),
                       .block_tokens = block_tokens};
  if (row_order) {
    if (row_order->ndim() != 2 || row_order->shape(0) != experts.shape(1)) {
      throw py::value_error("row_order: expected shape [L, N]");
    }
    options.row_order = {row_order->data(), static_cast<std::size_t>(row_order->shape(1))};
  }
  const py::gil_scoped_release release;
  count_pairs(view, num_experts, plan, tables, options);
}

}  // namespace

void bind_counts(py::module_& module) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    const auto refuse = [](const std::exception& error) {
      const auto type = py::module_::import("routestats.errors").attr("InvalidValueError");
      PyErr_SetString(type.ptr(), error.what());
    };
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const ExpertOutOfRange& error) {
      refuse(error);
    } catch (const RowOutOfRange& error) {
      refuse(error);
    } catch (const ExpertRepeated& error) {
      refuse(error);
    }
  });
  // noconvert: a converted table would be a copy, and the counts would be lost with it.
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
          throw py::value_error("layers, experts, slots, pairs: expected at least 1");
        }
        return name_of(
            choose_method({layers, experts, slots, pairs}, isa_named(isa).value_or(best_isa())));
      },
      py::kw_only(), py::arg("layers"), py::arg("experts"), py::arg("slots"), py::arg("pairs"),
      py::arg("isa") = py::none(),
      "The method that count_pairs takes for so many counted slots and pairs of layers.");
  py::list methods;
  for (const Method method : kMethods) methods.append(name_of(method));
  module.attr("PAIR_METHODS") = py::tuple(methods);
}

}  // namespace routestats::bindings
