#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <span>

#include "bindings/bindings.hpp"
#include "bindings/expert_argument.hpp"
#include "groups/segments.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

using Numbers = py::array_t<std::int64_t, py::array::c_style>;
using Table = py::array_t<std::uint64_t, py::array::c_style>;

std::span<const std::int64_t> span_of(const Numbers& numbers) {
  return {numbers.data(), static_cast<std::size_t>(numbers.size())};
}

void count(const py::array& experts, std::size_t num_experts, const Numbers& tokens,
           const Numbers& starts, const Numbers& groups, std::size_t m, std::size_t capacity,
           Table& uses, Table& hits, unsigned threads) {
  const ExpertView view = view_of(experts);
  if (hits.ndim() != 2) throw py::value_error("hits: expected 2 dimensions [groups, L]");
  const py::ssize_t num_groups = hits.shape(0);
  check_shape("hits", hits, {num_groups, experts.shape(1)});
  check_shape("uses", uses, {num_groups, experts.shape(1), static_cast<py::ssize_t>(m) + 1});
  const TokenRuns runs{span_of(tokens), span_of(starts), span_of(groups)};
  const SegmentTables tables{static_cast<std::size_t>(num_groups), uses.mutable_data(),
                             hits.mutable_data()};
  const py::gil_scoped_release release;
  count_segments(view, num_experts, runs, m, capacity, tables, threads);
}

}  // namespace

void bind_segments(py::module_& module) {
  module.def("count_segments", &count, py::arg("experts").noconvert(), py::kw_only(),
             py::arg("num_experts"), py::arg("tokens").noconvert(), py::arg("starts").noconvert(),
             py::arg("groups").noconvert(), py::arg("m"), py::arg("capacity"),
             py::arg("uses").noconvert(), py::arg("hits").noconvert(), py::arg("threads"),
             "Add window uses [groups, L, m + 1] and cache hits [groups, L], in place.");
}

}  // namespace routestats::bindings
