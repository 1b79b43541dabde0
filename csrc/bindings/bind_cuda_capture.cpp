#include <cstdint>
#include <memory>

#include "bindings/cuda_bindings.hpp"
#include "bindings/step_ring_binding.hpp"
#include "cuda/capture.hpp"
#include "cuda/step_device.hpp"

namespace py = pybind11;

namespace routestats::bindings {

void bind_cuda_capture(py::module_& module) {
  bind_step_ring(module, "StepRing",
                 "The ring that capture kernels write, in the memory of the current device.",
                 [](const CaptureTarget& target, bool weights) {
                   return std::make_unique<cuda::CudaStepDevice>(target, weights);
                 });
  module.def("load_capture_kernels", &cuda::load_capture_kernels,
             "Load the kernels, which must not happen first while a graph is captured.");
  module.def(
      "capture",
      [](const CaptureTarget& target, std::uint32_t layer, std::uintptr_t ids, IdType id_type,
         std::uintptr_t weights, WeightType weight_type, std::uint64_t rows,
         std::uintptr_t stream) {
        cuda::launch_capture(target,
                             {reinterpret_cast<const void*>(ids), id_type,
                              reinterpret_cast<const void*>(weights), weight_type, rows},
                             layer, reinterpret_cast<cudaStream_t>(stream));
      },
      py::arg("target"), py::arg("layer"), py::arg("ids"), py::arg("id_type"), py::arg("weights"),
      py::arg("weight_type"), py::arg("rows"), py::arg("stream"),
      "Launch the capture kernel of one layer.");
  module.def(
      "compare",
      [](const CaptureTarget& target, std::uint32_t layer, std::uintptr_t ids, IdType id_type,
         std::uintptr_t theirs, IdType their_type, std::uint64_t rows, const RouterScores& scores,
         std::uintptr_t stream) {
        cuda::launch_compare(target, two_choices(ids, id_type, theirs, their_type, rows, scores),
                             layer, reinterpret_cast<cudaStream_t>(stream));
      },
      py::arg("target"), py::arg("layer"), py::arg("ids"), py::arg("id_type"), py::arg("theirs"),
      py::arg("their_type"), py::arg("rows"), py::arg("scores"), py::arg("stream"),
      "Launch the kernel that compares what a router and a kernel chose.");
}

}  // namespace routestats::bindings
