#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "contexts/layer_columns.hpp"
#include "prediction/history_hits.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

// `count` numbers below `limit`.
const std::uint32_t* numbers_below(const char* name, const py::array& array, py::ssize_t count,
                                   std::size_t limit) {
  const auto* const numbers = input<std::uint32_t>(name, array, {count});
  if (std::any_of(numbers, numbers + count, [&](std::uint32_t n) { return n >= limit; })) {
    throw std::invalid_argument(std::string(name) + ": expected numbers below " +
                                std::to_string(limit));
  }
  return numbers;
}

void history_hits(const py::array& train, const py::array& test, std::size_t num_experts, bool sets,
                  bool top1, const std::vector<std::uint32_t>& best,
                  const std::vector<std::uint32_t>& orders,
                  const std::vector<std::uint32_t>& supports, py::array& hits, py::array& resolved,
                  const std::optional<py::array>& groups, std::size_t num_groups,
                  const std::optional<py::array>& chosen, unsigned threads) {
  const ExpertView train_view = view_of(train), test_view = view_of(test);
  const HistoryQuestion question{num_experts, sets, top1, best, {orders, supports}};
  const py::ssize_t layers = train.shape(1), pairs = layers * (layers - 1) / 2;
  const auto measures = static_cast<py::ssize_t>(question.measures());
  const auto settings = static_cast<py::ssize_t>(question.settings.size());
  HistoryHits result{};
  result.resolved = output<std::int64_t>(
      "resolved", resolved,
      {static_cast<py::ssize_t>(supports.size()), std::max<py::ssize_t>(layers - 1, 0), layers});
  if (groups.has_value() != chosen.has_value()) {
    throw std::invalid_argument("chosen: expected with groups, and only with them");
  }
  if (groups) {
    result.hits =
        output<std::int64_t>("hits", hits, {measures, extent_of("num_groups", num_groups), pairs});
    result.groups = numbers_below("groups", *groups, test.shape(0), num_groups);
    result.num_groups = num_groups;
    result.chosen = numbers_below("chosen", *chosen, pairs, question.settings.size());
  } else {
    result.hits = output<std::int64_t>("hits", hits, {settings, measures, pairs});
  }
  const py::gil_scoped_release release;
  count_history_hits(train_view, test_view, question, result, threads);
}

}  // namespace

void bind_history(py::module_& module) {
  module.def("history_hits", &history_hits, py::arg("train").noconvert(),
             py::arg("test").noconvert(), py::kw_only(), py::arg("num_experts"), py::arg("sets"),
             py::arg("top1"), py::arg("best"), py::arg("orders"), py::arg("supports"),
             py::arg("hits").noconvert(), py::arg("resolved").noconvert(),
             py::arg("groups") = py::none(), py::arg("num_groups") = 0,
             py::arg("chosen") = py::none(), py::arg("threads"),
             "Add the held-out hits of history prediction to `hits` and `resolved`, in place.");
}

}  // namespace routestats::bindings
