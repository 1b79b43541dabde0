// The module _emulated: the part of _cuda that capture uses, on EmulatedStepDevice. Tests in Python
// run the ring of a device with it where there is none.
#include <cstdint>
#include <memory>
#include <vector>

#include "bindings/errors.hpp"
#include "bindings/step_ring_binding.hpp"
#include "tests/emulated_step_device.hpp"

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
}  // namespace routestats::bindings

PYBIND11_MODULE(_emulated, module) {
  using namespace routestats;
  using namespace routestats::bindings;
  py::module_::import("routestats._core");  // its types are arguments here
  register_errors();
  bind_step_ring(module, "StepRing", "As _cuda.StepRing.", [](const CaptureTarget& target, bool) {
    return std::make_unique<EmulatedStepDevice>(target);
  });
  module.def("load_capture_kernels", [] {});
  module.def(
      "capture",
      [](const CaptureTarget& target, std::uint32_t layer, std::uintptr_t ids, IdType id_type,
         std::uintptr_t weights, WeightType weight_type, std::uint64_t rows, std::uintptr_t) {
        emulate_capture(target,
                        {reinterpret_cast<const void*>(ids), id_type,
                         reinterpret_cast<const void*>(weights), weight_type, rows},
                        layer);
      },
      py::arg("target"), py::arg("layer"), py::arg("ids"), py::arg("id_type"), py::arg("weights"),
      py::arg("weight_type"), py::arg("rows"), py::arg("stream"));
  module.def(
      "compare",
      [](const CaptureTarget& target, std::uint32_t layer, std::uintptr_t ids, IdType id_type,
         std::uintptr_t theirs, IdType their_type, std::uint64_t rows, const RouterScores& scores,
         std::uintptr_t) {
        emulate_check(target, two_choices(ids, id_type, theirs, their_type, rows, scores), layer);
      },
      py::arg("target"), py::arg("layer"), py::arg("ids"), py::arg("id_type"), py::arg("theirs"),
      py::arg("their_type"), py::arg("rows"), py::arg("scores"), py::arg("stream"));
  module.def("gather_rows", &gather_rows, py::arg("target"), py::arg("rows"),
             "Ids [n, L, K] of rows that a ring holds, by their numbers.");
}
