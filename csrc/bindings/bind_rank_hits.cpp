#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/expert_argument.hpp"
#include "prediction/rank_hits.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

template <class Value>
using Array = py::array_t<Value, py::array::c_style>;

std::size_t extent(const py::array& array, py::ssize_t axis) {
  return static_cast<std::size_t>(array.shape(axis));
}

void check_dimensions(const char* name, const py::array& array, py::ssize_t expected) {
  if (array.ndim() == expected) return;
  throw py::value_error(std::string(name) + ": expected " + std::to_string(expected) +
                        " dimensions, got " + std::to_string(array.ndim()));
}

void add_hits(const Array<double>& tables, const Array<double>& base,
              const Array<std::uint32_t>& rows, const Array<std::uint16_t>& chosen,
              const Array<std::uint32_t>& group_of, const std::vector<std::uint32_t>& best,
              Array<std::int64_t>& hits, unsigned threads, const std::optional<std::string>& isa) {
  check_dimensions("tables", tables, 3);
  check_dimensions("rows", rows, 3);
  check_dimensions("chosen", chosen, 3);
  check_dimensions("hits", hits, 3);
  const py::ssize_t targets = tables.shape(0), tokens = chosen.shape(1);
  const bool shared = rows.shape(0) == 1;
  check_shape("base", base, {targets, tables.shape(2)});
  check_shape("rows", rows, {shared ? 1 : targets, tokens, rows.shape(2)});
  check_shape("chosen", chosen, {targets, tokens, chosen.shape(2)});
  check_shape("group_of", group_of, {tokens});
  check_shape("hits", hits, {targets, hits.shape(1), static_cast<py::ssize_t>(best.size()) + 2});
  const ScoredTokens scored{
      extent(tables, 0), extent(tables, 2), extent(tables, 1), tables.data(), base.data(),
      extent(chosen, 1), extent(rows, 2),   rows.data(),       shared,        extent(chosen, 2),
      chosen.data(),     extent(hits, 1),   group_of.data()};
  std::int64_t* cells = hits.mutable_data();
  const Isa chosen_isa = isa_named(isa).value_or(best_isa());
  const py::gil_scoped_release release;
  add_rank_hits(scored, best, cells, threads, chosen_isa);
}

}  // namespace

void bind_rank_hits(py::module_& module) {
  // noconvert: converted hits would be a copy and be lost, and other arrays are large.
  module.def("add_rank_hits", &add_hits, py::kw_only(), py::arg("tables").noconvert(),
             py::arg("base").noconvert(), py::arg("rows").noconvert(),
             py::arg("chosen").noconvert(), py::arg("group_of").noconvert(), py::arg("best"),
             py::arg("hits").noconvert(), py::arg("threads"), py::arg("isa") = py::none(),
             "Add the hits of scored predictions to `hits` [P, G, 2 + len(best)], in place.");
}

}  // namespace routestats::bindings
