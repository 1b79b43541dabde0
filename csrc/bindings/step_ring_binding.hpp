#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/ring_binding.hpp"
#include "capture/step_ring.hpp"

// StepRing as a Python class, for any device: modules differ only in how they make the device.
namespace routestats::bindings {

// Numbers of rows, counted from the first row of the ring.
using RowNumbers = pybind11::array_t<std::int64_t, pybind11::array::c_style>;

// The slots of rows that the ring holds.
inline std::vector<std::uint32_t> slots_of(const CaptureTarget& target, const RowNumbers& rows) {
  std::vector<std::uint32_t> slots;
  slots.reserve(static_cast<std::size_t>(rows.size()));
  for (pybind11::ssize_t i = 0; i < rows.size(); ++i) {
    if (rows.at(i) < 0) {
      throw std::invalid_argument("rows: expected numbers of at least 0, got " +
                                  std::to_string(rows.at(i)));
    }
    const std::uint64_t slot = target.extents.slot(static_cast<std::uint64_t>(rows.at(i)));
    slots.push_back(static_cast<std::uint32_t>(slot));
  }
  return slots;
}

inline pybind11::tuple drain_steps(StepRing& ring, std::uint64_t max_rows, std::uint64_t wait_rows,
                                   double seconds) {
  namespace py = pybind11;
  ring.release();
  DrainedSteps drained = wait_for_steps(ring, max_rows, wait_rows, seconds);
  py::array_t<std::int32_t> tags(std::vector<py::ssize_t>{drained.ids.shape(0), 2});
  void* const id_bytes = drained.ids.mutable_data();
  std::int32_t* const tag_data = tags.mutable_data();
  {
    const py::gil_scoped_release release;
    ring.take(drained.steps, id_bytes, drained.weight_bits, tag_data);
  }
  return py::make_tuple(drained.spans, drained.ids, drained.weights, tags);
}

// The choices of a router and of a kernel, as Python gives them.
inline TwoChoices two_choices(std::uintptr_t ours, IdType our_type, std::uintptr_t theirs,
                              IdType their_type, std::uint64_t rows, const RouterScores& scores) {
  return {reinterpret_cast<const void*>(ours),
          our_type,
          reinterpret_cast<const void*>(theirs),
          their_type,
          rows,
          scores};
}

// `make_device(target, weights)` makes the device.
template <class MakeDevice>
void bind_step_ring(pybind11::module_& module, const char* name, const char* doc,
                    MakeDevice make_device) {
  namespace py = pybind11;
  py::class_<StepRing> ring_class(module, name, doc, py::module_local());  // one per module
  ring_class
      .def(py::init([make_device](const CaptureTarget& target, std::uint64_t capacity, bool weights,
                                  bool block, std::uint32_t checked_layers) {
             const RingConfig config{target.extents.layers,
                                     target.experts,
                                     target.extents.top_k,
                                     capacity,
                                     weights,
                                     block ? Overflow::block : Overflow::drop};
             return std::make_unique<StepRing>(config, target.extents, make_device(target, weights),
                                               checked_layers);
           }),
           py::arg("target"), py::kw_only(), py::arg("capacity"), py::arg("weights"),
           py::arg("block"), py::arg("checked_layers") = 0)
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
      .def("release", &StepRing::release,
           "Free the slots of the rows that the last drain gave; the next one does so, too.");
  ring_class.def_property_readonly("near_ties", &StepRing::near_ties);
  bind_ring_state(ring_class);
}

}  // namespace routestats::bindings
