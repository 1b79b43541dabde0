#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/bindings.hpp"
#include "capture/capture_step.hpp"

namespace py = pybind11;

namespace routestats::bindings {

void bind_capture_target(py::module_& module) {
  py::class_<CaptureTarget>(module, "CaptureTarget",
                            "Addresses and extents of a ring in a device's memory.")
      .def(py::init([](std::uintptr_t control, std::uintptr_t ids, std::uintptr_t weights,
                       std::uintptr_t tags, std::uint64_t capacity, std::uint32_t layers,
                       std::uint32_t experts, std::uint32_t top_k) {
             return CaptureTarget{reinterpret_cast<std::uint64_t*>(control),
                                  reinterpret_cast<void*>(ids),
                                  reinterpret_cast<std::uint16_t*>(weights),
                                  reinterpret_cast<std::int32_t*>(tags),
                                  {capacity, layers, top_k},
                                  experts};
           }),
           py::kw_only(), py::arg("control"), py::arg("ids"), py::arg("weights"), py::arg("tags"),
           py::arg("capacity"), py::arg("layers"), py::arg("experts"), py::arg("top_k"));
  module.def(
      "control_words", [](std::uint32_t layers) { return ControlLayout{layers}.words(); },
      py::arg("layers"), "64-bit words of control memory that a ring of `layers` layers needs.");
}

}  // namespace routestats::bindings
