#include <cstdint>
#include <memory>

#include "bindings/bindings.hpp"
#include "bindings/step_ring_binding.hpp"
#include "capture/emulated_step_device.hpp"

namespace py = pybind11;

namespace routestats::bindings {

namespace {

py::array gather_rows(const CaptureTarget& target, const RowNumbers& rows) {
  const std::vector<std::uint32_t> slots = slots_of(target, rows);
  const RingExtents& extents = target.extents;
  py::array ids(target.id_bytes() == 1 ? py::dtype("uint8") : py::dtype("uint16"),
                std::vector<py::ssize_t>{rows.size(), extents.layers, extents.top_k});
  void* const gathered = ids.mutable_data();
  for (std::uint64_t choice = 0; choice < slots.size() * extents.row_width(); ++choice) {
    gather_id(target, slots.data(), choice, gathered);
  }
  return ids;
}

}  // namespace

void bind_step_ring(py::module_& module) {
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
      py::arg("layers"), "64-bit words of control memory that a ring of so many layers needs.");
  module.attr("STEPS_IN_FLIGHT") = kStepsInFlight;
  module.def("gather_rows", &gather_rows, py::arg("target"), py::arg("rows"),
             "Ids [n, L, K] of rows of a ring in the host's memory, by their numbers.");
  bind_step_ring(module, "EmulatedStepRing",
                 "The ring that kernels write, with the kernels compiled for the host: for tests "
                 "where there is no device.",
                 [](const CaptureTarget& target, bool) {
                   return std::make_unique<EmulatedStepDevice>(target);
                 });
  module.def(
      "emulate_capture",
      [](const CaptureTarget& target, std::uint32_t layer, std::uintptr_t ids, IdType id_type,
         std::uintptr_t weights, WeightType weight_type, std::uint64_t rows) {
        emulate_capture(target,
                        {reinterpret_cast<const void*>(ids), id_type,
                         reinterpret_cast<const void*>(weights), weight_type, rows},
                        layer);
      },
      py::arg("target"), py::arg("layer"), py::arg("ids"), py::arg("id_type"), py::arg("weights"),
      py::arg("weight_type"), py::arg("rows"), "The capture kernel of one layer, on the host.");
}

}  // namespace routestats::bindings
