#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "capture/ring.hpp"

// The common parts of CaptureRing and StepRing as Python classes.
namespace routestats::bindings {

// Steps that will be taken from a ring, and the arrays that their rows go into.
struct DrainedSteps {
  std::vector<Step> steps;
  pybind11::list spans;      // (number, rows) of each
  pybind11::array ids;       // [rows, layers, top_k], uint8 or uint16
  pybind11::object weights;  // the same of float16, or None
  std::uint16_t* weight_bits = nullptr;
};

template <class Ring>
DrainedSteps wait_for_steps(Ring& ring, std::uint64_t max_rows, std::uint64_t wait_rows,
                            double seconds) {
  namespace py = pybind11;
  std::vector<Step> steps;
  {
    const py::gil_scoped_release release;
    ring.wait(wait_rows, seconds);
    steps = ring.peek(max_rows);
  }
  py::list spans;
  for (const Step& step : steps) spans.append(py::make_tuple(step.number, step.rows));
  const auto& config = ring.config();
  const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(rows_of(steps)), config.layers,
                                       config.top_k};
  DrainedSteps drained{
      std::move(steps), std::move(spans),
      py::array(ring.id_bytes() == 1 ? py::dtype("uint8") : py::dtype("uint16"), shape),
      py::none()};
  if (config.weights) {
    py::array halves(py::dtype("float16"), shape);
    drained.weight_bits = static_cast<std::uint16_t*>(halves.mutable_data());
    drained.weights = std::move(halves);
  }
  return drained;
}

template <class Ring, class... Options>
void bind_ring_state(pybind11::class_<Ring, Options...>& ring_class) {
  ring_class.def("close", &Ring::close)
      .def("fail", &Ring::fail, pybind11::arg("reason"))
      .def_property_readonly("top_k", [](const Ring& ring) { return ring.config().top_k; })
      .def_property_readonly("step_open", &Ring::step_open)
      .def_property_readonly("dropped_rows", &Ring::dropped_rows)
      .def_property_readonly("dropped_steps", &Ring::dropped_steps)
      .def_property_readonly("committed_rows", &Ring::committed_rows);
}

}  // namespace routestats::bindings
