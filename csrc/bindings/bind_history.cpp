#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/expert_argument.hpp"
#include "contexts/layer_columns.hpp"
#include "prediction/history_hits.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

using Sums = py::array_t<std::int64_t, py::array::c_style>;
using Numbers = py::array_t<std::uint32_t, py::array::c_style>;

void require_below(const char* name, const Numbers& numbers, std::size_t limit) {
  const std::uint32_t* data = numbers.data();
  if (std::any_of(data, data + numbers.size(), [&](std::uint32_t n) { return n >= limit; })) {
    throw py::value_error(std::string(name) + ": expected numbers below " + std::to_string(limit));
  }
}

void history_hits(const py::array& train, const py::array& test, std::size_t num_experts, bool sets,
                  bool top1, const std::vector<std::uint32_t>& best,
                  const std::vector<std::uint32_t>& orders,
                  const std::vector<std::uint32_t>& supports, Sums& hits, Sums& resolved,
                  const std::optional<Numbers>& groups, std::size_t num_groups,
                  const std::optional<Numbers>& chosen, unsigned threads) {
  const ExpertView train_view = view_of(train), test_view = view_of(test);
  const HistoryQuestion question{num_experts, sets, top1, best, {orders, supports}};
  const py::ssize_t layers = train.shape(1), pairs = layers * (layers - 1) / 2;
  const auto measures = static_cast<py::ssize_t>(question.measures());
  const auto settings = static_cast<py::ssize_t>(question.settings.size());
  check_shape(
      "resolved", resolved,
      {static_cast<py::ssize_t>(supports.size()), std::max<py::ssize_t>(layers - 1, 0), layers});
  HistoryHits result{hits.mutable_data(), resolved.mutable_data()};
  if (groups.has_value() != chosen.has_value()) {
    throw py::value_error("chosen: expected with groups, and only with them");
  }
  if (groups) {
    check_shape("hits", hits, {measures, static_cast<py::ssize_t>(num_groups), pairs});
    check_shape("groups", *groups, {test.shape(0)});
    check_shape("chosen", *chosen, {pairs});
    require_below("groups", *groups, num_groups);
    require_below("chosen", *chosen, question.settings.size());
    result.groups = groups->data();
    result.num_groups = num_groups;
    result.chosen = chosen->data();
  } else {
    check_shape("hits", hits, {settings, measures, pairs});
  }
  const py::gil_scoped_release release;
  count_history_hits(train_view, test_view, question, result, threads);
}

}  // namespace

void bind_history(py::module_& module) {
  // noconvert: a converted array would be a copy, and the sums would be lost with it.
  module.def("history_hits", &history_hits, py::arg("train").noconvert(),
             py::arg("test").noconvert(), py::kw_only(), py::arg("num_experts"), py::arg("sets"),
             py::arg("top1"), py::arg("best"), py::arg("orders"), py::arg("supports"),
             py::arg("hits").noconvert(), py::arg("resolved").noconvert(),
             py::arg("groups") = py::none(), py::arg("num_groups") = 0,
             py::arg("chosen") = py::none(), py::arg("threads"),
             "Add the held-out hits of history prediction to `hits` and `resolved`, in place.");
}

}  // namespace routestats::bindings
