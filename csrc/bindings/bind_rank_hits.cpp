#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "prediction/rank_hits.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

std::size_t extent(const py::array& array, py::ssize_t axis) {
  return static_cast<std::size_t>(array.shape(axis));
}

void add_hits(const py::array& tables, const py::array& base, const py::array& rows,
              const py::array& chosen, const py::array& group_of,
              const std::vector<std::uint32_t>& best, py::array& hits, unsigned threads,
              const std::optional<std::string>& isa) {
  const auto* const table_cells = input<double>("tables", tables, {kAny, kAny, kAny});
  auto* const cells = output<std::int64_t>(
      "hits", hits, {tables.shape(0), kAny, static_cast<py::ssize_t>(best.size()) + 2});
  check_shape("rows", rows, {kAny, kAny, kAny});
  check_shape("chosen", chosen, {kAny, kAny, kAny});
  const py::ssize_t targets = tables.shape(0), tokens = chosen.shape(1);
  const bool shared = rows.shape(0) == 1;
  const ScoredTokens scored{
      extent(tables, 0),
      extent(tables, 2),
      extent(tables, 1),
      table_cells,
      input<double>("base", base, {targets, tables.shape(2)}),
      extent(chosen, 1),
      extent(rows, 2),
      input<std::uint32_t>("rows", rows, {shared ? 1 : targets, tokens, rows.shape(2)}),
      shared,
      extent(chosen, 2),
      input<std::uint16_t>("chosen", chosen, {targets, tokens, chosen.shape(2)}),
      extent(hits, 1),
      input<std::uint32_t>("group_of", group_of, {tokens})};
  const Isa chosen_isa = isa_named(isa).value_or(best_isa());
  const py::gil_scoped_release release;
  add_rank_hits(scored, best, cells, threads, chosen_isa);
}

}  // namespace

void bind_rank_hits(py::module_& module) {
  module.def("add_rank_hits", &add_hits, py::kw_only(), py::arg("tables").noconvert(),
             py::arg("base").noconvert(), py::arg("rows").noconvert(),
             py::arg("chosen").noconvert(), py::arg("group_of").noconvert(), py::arg("best"),
             py::arg("hits").noconvert(), py::arg("threads"), py::arg("isa") = py::none(),
             "Add the hits of scored predictions to `hits` [P, G, 2 + len(best)], in place.");
}

}  // namespace routestats::bindings
