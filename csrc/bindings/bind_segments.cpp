#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "groups/segments.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

void count(const py::array& experts, std::size_t num_experts, const py::array& tokens,
           const py::array& starts, const py::array& groups, std::size_t m, std::size_t capacity,
           py::array& uses, py::array& hits, unsigned threads) {
  const ExpertView view = view_of(experts);
  auto* const hit_cells = output<std::uint64_t>("hits", hits, {kAny, experts.shape(1)});
  const py::ssize_t num_groups = hits.shape(0);
  auto* const use_cells =
      output<std::uint64_t>("uses", uses, {num_groups, experts.shape(1), extent_of("m", m) + 1});
  const TokenRuns runs{input_row<std::int64_t>("tokens", tokens),
                       input_row<std::int64_t>("starts", starts),
                       input_row<std::int64_t>("groups", groups)};
  const SegmentTables tables{static_cast<std::size_t>(num_groups), use_cells, hit_cells};
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
