#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "routestats/step_ring.hpp"

// StepRing as a Python class, for any device: the host's emulation and CUDA differ only in how the
// device is made.
namespace routestats::bindings {

inline pybind11::tuple drain_steps(StepRing& ring, std::uint64_t max_rows, std::uint64_t wait_rows,
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
  const auto rows = static_cast<py::ssize_t>(rows_of(steps));
  const std::vector<py::ssize_t> shape{rows, config.layers, config.top_k};
  py::array ids(ring.id_bytes() == 1 ? py::dtype("uint8") : py::dtype("uint16"), shape);
  py::array_t<std::int32_t> tags(std::vector<py::ssize_t>{rows, 2});
  py::object weights = py::none();
  std::uint16_t* weight_bits = nullptr;
  if (config.weights) {
    py::array halves(py::dtype("float16"), shape);
    weight_bits = static_cast<std::uint16_t*>(halves.mutable_data());
    weights = std::move(halves);
  }
  void* const id_bytes = ids.mutable_data();
  std::int32_t* const tag_data = tags.mutable_data();
  {
    const py::gil_scoped_release release;
    ring.take(steps, id_bytes, weight_bits, tag_data);
  }
  return py::make_tuple(spans, ids, weights, tags);
}

// `make_device(target, weights)` gives the device.
template <class MakeDevice>
pybind11::class_<StepRing> bind_step_ring(pybind11::module_& module, const char* name,
                                          const char* doc, MakeDevice make_device) {
  namespace py = pybind11;
  return py::class_<StepRing>(module, name, doc, py::module_local())  // one per module
      .def(py::init([make_device](const CaptureTarget& target, std::uint64_t capacity, bool weights,
                                  bool block) {
             const RingConfig config{target.extents.layers,
                                     target.experts,
                                     target.extents.top_k,
                                     capacity,
                                     weights,
                                     block ? Overflow::block : Overflow::drop};
             return std::make_unique<StepRing>(config, target.extents,
                                               make_device(target, weights));
           }),
           py::arg("target"), py::kw_only(), py::arg("capacity"), py::arg("weights"),
           py::arg("block"))
      .def("begin_step", &StepRing::begin_step, py::arg("rows"), py::arg("stream") = 0,
           py::call_guard<py::gil_scoped_release>())
      .def(
          "commit_step",
          [](StepRing& ring, std::uintptr_t positions, IdType position_type,
             std::uintptr_t token_ids, IdType token_type, StepRing::Stream stream) {
            return ring.commit_step({reinterpret_cast<const void*>(positions), position_type,
                                     reinterpret_cast<const void*>(token_ids), token_type},
                                    stream);
          },
          py::arg("positions"), py::arg("position_type"), py::arg("token_ids"),
          py::arg("token_type"), py::arg("stream") = 0)
      .def("abandon_step", &StepRing::abandon_step, py::arg("stream") = 0)
      .def("drain", &drain_steps, py::kw_only(), py::arg("max_rows"), py::arg("wait_rows"),
           py::arg("seconds"))
      .def("close", &StepRing::close)
      .def("fail", &StepRing::fail, py::arg("reason"))
      .def_property_readonly("top_k", [](const StepRing& ring) { return ring.config().top_k; })
      .def_property_readonly("step_open", &StepRing::step_open)
      .def_property_readonly("dropped_rows", &StepRing::dropped_rows)
      .def_property_readonly("dropped_steps", &StepRing::dropped_steps)
      .def_property_readonly("committed_rows", &StepRing::committed_rows);
}

}  // namespace routestats::bindings
