#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "bindings.hpp"
#include "expert_argument.hpp"
#include "routestats/path_counts.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

PathKind kind_named(const std::string& name) {
  if (name == "top1") return PathKind::top1;
  if (name == "set") return PathKind::set;
  throw py::value_error("kind: expected top1 or set, got " + name);
}

PathCounts make(const std::string& kind, std::size_t num_experts, std::size_t top_k,
                std::size_t start, std::size_t length, const std::optional<std::string>& isa) {
  return PathCounts({kind_named(kind), num_experts, top_k, start, length},
                    isa_named(isa).value_or(best_isa()));
}

void add(PathCounts& counts, const py::array& experts, unsigned threads,
         std::uint64_t first_token) {
  const ExpertView view = view_of(experts);
  const py::gil_scoped_release release;
  counts.add(view, first_token, threads);
}

py::tuple most_frequent(const PathCounts& counts, std::size_t number) {
  std::vector<PathCounts::Entry> entries;
  {
    const py::gil_scoped_release release;
    entries = counts.most_frequent(number);
  }
  const PathCodec& codec = counts.codec();
  const auto rows = static_cast<py::ssize_t>(entries.size());
  Array<std::uint16_t> ids({rows, static_cast<py::ssize_t>(codec.layers()),
                            static_cast<py::ssize_t>(codec.ids_per_layer())});
  Array<std::uint64_t> numbers(rows);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    codec.unpack(entries[i].key, ids.mutable_data() + i * codec.ids_per_path());
    numbers.mutable_data()[i] = entries[i].count;
  }
  return py::make_tuple(ids, numbers);
}

py::tuple frequencies(const PathCounts& counts) {
  const auto found = counts.frequencies();
  const auto rows = static_cast<py::ssize_t>(found.size());
  Array<std::uint64_t> count(rows);
  Array<std::uint64_t> paths(rows);
  for (std::size_t i = 0; i < found.size(); ++i) {
    count.mutable_data()[i] = found[i].first;
    paths.mutable_data()[i] = found[i].second;
  }
  return py::make_tuple(count, paths);
}

}  // namespace

void bind_paths(py::module_& module) {
  py::class_<PathCounts>(module, "PathCounter", "Exact counts of the paths through some layers.")
      .def(py::init(&make), py::kw_only(), py::arg("kind"), py::arg("num_experts"),
           py::arg("top_k"), py::arg("start"), py::arg("length"), py::arg("isa") = py::none())
      .def("add", &add, py::arg("experts").noconvert(), py::kw_only(), py::arg("threads"),
           py::arg("first_token") = 0)
      .def("merge", &PathCounts::merge, py::arg("other"), py::kw_only(), py::arg("threads"),
           py::call_guard<py::gil_scoped_release>())
      .def("most_frequent", &most_frequent, py::arg("number"))
      .def("frequencies", &frequencies)
      .def_property_readonly("tokens", &PathCounts::tokens)
      .def_property_readonly("distinct", &PathCounts::distinct);
}

}  // namespace routestats::bindings
