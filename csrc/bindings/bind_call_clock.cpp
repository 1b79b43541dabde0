#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "bindings/bindings.hpp"
#include "bindings/call_clock.hpp"
#include "bindings/clocked_function.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

py::object wrap(const py::object& clock, const py::dict& codes, py::object function) {
  std::unordered_map<const void*, std::int32_t> by_object;
  for (const auto& [id, code] : codes) {
    const auto number = py::cast<std::int32_t>(code);
    if (number < 0) throw std::invalid_argument("codes: expected them not to be negative");
    by_object.emplace(PyLong_AsVoidPtr(id.ptr()), number);
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  }
  return clocked_function(py::cast<CallClock&>(clock), clock, std::move(function),
                          std::move(by_object));
}

py::list take_steps(CallClock& clock) {
  py::list found;
  for (const auto& marks : clock.take_steps()) {
    py::array_t<std::int64_t> rows({static_cast<py::ssize_t>(marks.size()), py::ssize_t{2}});
    auto out = rows.mutable_unchecked<2>();
    for (std::size_t i = 0; i < marks.size(); ++i) {
      out(static_cast<py::ssize_t>(i), 0) = marks[i].code;
      out(static_cast<py::ssize_t>(i), 1) = marks[i].ns;
    }
    found.append(std::move(rows));
  }
  return found;
}

}  // namespace

void bind_call_clock(py::module_& module) {
  py::class_<CallClock>(module, "CallClock",
                        "Readings of the monotonic clock around calls, step by step.")
      .def(py::init<>())
      .def("wrap", &wrap, py::arg("codes"), py::arg("function"),
           "`function`, whose calls on objects with a code, by their `id`, are clocked.")
      .def("begin", &CallClock::begin_step, "A step begins.")
      .def("end", &CallClock::end_step, "It has ended.")
      .def("take", &take_steps,
           "Marks [n, 2] of each step that ended since the last call: code (the bitwise complement "
           "where a call ends) and nanoseconds.");
}

}  // namespace routestats::bindings
