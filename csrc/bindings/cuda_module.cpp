#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/cuda_bindings.hpp"
#include "bindings/errors.hpp"
#include "cuda/memory.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

// Never throws: a machine without a driver, or without a device, has none.
int device_count() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

py::object why_unavailable() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return py::str("there is no CUDA driver");
  }
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return py::str(cudaGetErrorString(status));
  if (devices == 0) return py::str("no CUDA-capable device is detected");
  return py::none();
}

py::dict versions() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  py::dict result;
  result["runtime"] = CUDART_VERSION;
  result["driver"] = driver;  // 0: there is none
  result["architectures"] = ROUTESTATS_CUDA_ARCHITECTURES;
  return result;
}

py::dict device_properties(int device) {
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, device), "read the device's properties");
  py::dict result;
  result["name"] = properties.name;
  result["compute_capability"] = py::make_tuple(properties.major, properties.minor);
  result["multiprocessors"] = properties.multiProcessorCount;
  result["l2_bytes"] = properties.l2CacheSize;
  result["shared_bytes_per_block"] = properties.sharedMemPerBlockOptin;
  result["memory_bytes"] = properties.totalGlobalMem;
  return result;
}

int device_of(std::uintptr_t address) {
  cudaPointerAttributes attributes{};
  cuda::check(cudaPointerGetAttributes(&attributes, reinterpret_cast<const void*>(address)),
              "find an array's device");
  return attributes.device;
}

}  // namespace
}  // namespace routestats::bindings

PYBIND11_MODULE(_cuda, module) {
  using namespace routestats;
  using namespace routestats::bindings;
  module.doc() = "The CUDA kernels of routestats; use it through the Python package.";
  py::module_::import("routestats._core");  // its types are arguments here
  register_errors();
  module.def("device_count", &device_count, "CUDA devices that can be used here; 0 without one.");
  module.def("why_unavailable", &why_unavailable, "Why there is no device, or None if there is.");
  module.def("versions", &versions, "CUDA runtime and driver (1000 * major + 10 * minor).");
  module.def("device_properties", &device_properties, py::arg("device") = 0);
  module.def("current_device", &cuda::current_device);
  module.def("device_of", &device_of, py::arg("address"), "The device whose memory this is.");
  module.def(
      "wait_for_stream",
      [](std::uintptr_t stream) {
        const py::gil_scoped_release release;
        cuda::check(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream)),
                    "wait for an array's stream");
      },
      py::arg("stream"), "Wait for a stream by its handle; 1 and 2 are the default streams.");
  bind_cuda_counts(module);
  bind_cuda_capture(module);
}
