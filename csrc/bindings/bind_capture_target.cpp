#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

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
      "control_words",
      [](std::uint32_t layers, std::uint32_t top_k) {
        return ControlLayout{layers, top_k}.words();
      },
      py::arg("layers"), py::arg("top_k"), "64-bit words of control memory that a ring needs.");

  py::class_<RouterScores>(module, "RouterScores",
                           "Addresses of what a layer's experts are chosen by, on a device.")
      .def(py::init([](std::uintptr_t logits, WeightType logit_type, std::uintptr_t bias,
                       WeightType bias_type, bool sigmoid, std::uint32_t experts,
                       std::uint32_t groups, std::uint32_t chosen_groups, float unit) {
             if (groups == 0 || experts % groups != 0) {
               throw std::invalid_argument("groups: expected a divisor of " +
                                           std::to_string(experts) + " experts, got " +
                                           std::to_string(groups));
             }
             return RouterScores{reinterpret_cast<const void*>(logits),
                                 logit_type,
                                 reinterpret_cast<const void*>(bias),
                                 bias_type,
                                 sigmoid ? ScoreKind::sigmoid : ScoreKind::logit,
                                 experts,
                                 groups,
                                 chosen_groups,
                                 unit};
           }),
           py::kw_only(), py::arg("logits"), py::arg("logit_type"), py::arg("bias"),
           py::arg("bias_type"), py::arg("sigmoid"), py::arg("experts"), py::arg("groups"),
           py::arg("chosen_groups"), py::arg("unit"));
}

}  // namespace routestats::bindings
