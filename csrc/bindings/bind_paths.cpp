#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "paths/path_counts.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

PathKind kind_named(const std::string& name) {
  if (name == "top1") return PathKind::top1;
  if (name == "set") return PathKind::set;
  throw std::invalid_argument("kind: expected top1 or set, got " + name);
}

// Python threads may share a counter: they take turns, and wait without the GIL.
class SharedPaths {
 public:
  explicit SharedPaths(PathCounts counts) : counts_(std::move(counts)) {}

  template <class Body>
  auto in_turn(const Body& body) {
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    return body(counts_);
  }

  void merge(SharedPaths& other, unsigned threads) {
    if (&other == this) return in_turn([&](PathCounts& counts) { counts.merge(counts, threads); });
    const py::gil_scoped_release release;
    const std::scoped_lock lock(mutex_, other.mutex_);
    counts_.merge(other.counts_, threads);
  }

 private:
  PathCounts counts_;
  std::mutex mutex_;
};

std::unique_ptr<SharedPaths> make(const std::string& kind, std::size_t num_experts,
                                  std::size_t top_k, std::size_t start, std::size_t length,
                                  const std::optional<std::string>& isa) {
  return std::make_unique<SharedPaths>(PathCounts(
      {kind_named(kind), num_experts, top_k, start, length}, isa_named(isa).value_or(best_isa())));
}

void add(SharedPaths& paths, const py::array& experts, unsigned threads,
         std::uint64_t first_token) {
  const ExpertView view = view_of(experts);
  paths.in_turn([&](PathCounts& counts) { counts.add(view, first_token, threads); });
}

py::tuple most_frequent(SharedPaths& paths, std::size_t number) {
  const PathCodec* codec = nullptr;
  const auto entries = paths.in_turn([&](const PathCounts& counts) {
    codec = &counts.codec();
    return counts.most_frequent(number);
  });
  const auto rows = static_cast<py::ssize_t>(entries.size());
  Array<std::uint16_t> ids({rows, static_cast<py::ssize_t>(codec->layers()),
                            static_cast<py::ssize_t>(codec->ids_per_layer())});
  Array<std::uint64_t> numbers(rows);
  // Another thread may count by now, but keys do not move or change.
  for (std::size_t i = 0; i < entries.size(); ++i) {
    codec->unpack(entries[i].key, ids.mutable_data() + i * codec->ids_per_path());
    numbers.mutable_data()[i] = entries[i].count;
  }
  return py::make_tuple(ids, numbers);
}

py::tuple frequencies(SharedPaths& paths) {
  const auto found = paths.in_turn([](const PathCounts& counts) { return counts.frequencies(); });
  const auto rows = static_cast<py::ssize_t>(found.size());
  Array<std::uint64_t> count(rows);
  Array<std::uint64_t> with_count(rows);
  for (std::size_t i = 0; i < found.size(); ++i) {
    count.mutable_data()[i] = found[i].first;
    with_count.mutable_data()[i] = found[i].second;
  }
  return py::make_tuple(count, with_count);
}

std::uint64_t tokens(SharedPaths& paths) {
  return paths.in_turn([](const PathCounts& counts) { return counts.tokens(); });
}

std::size_t distinct(SharedPaths& paths) {
  return paths.in_turn([](const PathCounts& counts) { return counts.distinct(); });
}

}  // namespace

void bind_paths(py::module_& module) {
  py::class_<SharedPaths>(module, "PathCounter", "Exact counts of the paths through some layers.")
      .def(py::init(&make), py::kw_only(), py::arg("kind"), py::arg("num_experts"),
           py::arg("top_k"), py::arg("start"), py::arg("length"), py::arg("isa") = py::none())
      .def("add", &add, py::arg("experts").noconvert(), py::kw_only(), py::arg("threads"),
           py::arg("first_token") = 0)
      .def("merge", &SharedPaths::merge, py::arg("other"), py::kw_only(), py::arg("threads"))
      .def("most_frequent", &most_frequent, py::arg("number"))
      .def("frequencies", &frequencies)
      .def_property_readonly("tokens", &tokens)
      .def_property_readonly("distinct", &distinct);
}

}  // namespace routestats::bindings
