#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "paths/ngram_counts.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

template <class T>
py::array_t<T> to_array(const std::vector<T>& values, const std::vector<std::size_t>& shape) {
  py::array_t<T> array(shape);
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

// Python threads may share a counter: they take turns, and wait without the GIL.
class Ngrams {
 public:
  Ngrams(std::size_t layers, std::size_t experts) : layers_(layers), counter_(layers, experts) {}

  void add(const py::array& experts, unsigned threads, std::uint64_t first_token) {
    const ExpertView view = view_of(experts);
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    counter_.add(view, first_token, threads);
  }

  py::tuple count(std::size_t top, unsigned threads) const {
    NgramTable table;
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      table = counter_.count(top, threads);
    }
    return py::make_tuple(to_array(table.distinct, {layers_, layers_}),
                          to_array(table.counts, {layers_, layers_, table.top}),
                          to_array(table.ids, {layers_, layers_, table.top, layers_}));
  }

  std::size_t tokens() const {
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    return counter_.tokens();
  }
  std::size_t paths() const {
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    return counter_.paths();
  }
  bool collapses() const {
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    return counter_.collapses();
  }

 private:
  std::size_t layers_;
  NgramCounter counter_;
  mutable std::mutex mutex_;
};

}  // namespace

void bind_ngrams(py::module_& module) {
  py::class_<Ngrams>(module, "NgramCounter", "Exact counts of all n-grams of first choices.")
      .def(py::init<std::size_t, std::size_t>(), py::kw_only(), py::arg("layers"),
           py::arg("num_experts"))
      .def("add", &Ngrams::add, py::arg("experts").noconvert(), py::kw_only(), py::arg("threads"),
           py::arg("first_token") = 0)
      .def("count", &Ngrams::count, py::arg("top"), py::kw_only(), py::arg("threads"))
      .def_property_readonly("tokens", &Ngrams::tokens)
      .def_property_readonly("paths", &Ngrams::paths)
      .def_property_readonly("collapses", &Ngrams::collapses);
}

}  // namespace routestats::bindings
