#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace routestats::cuda {

// The CUDA runtime refused something; what() says what, and why.
class DeviceError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void check(cudaError_t status, const char* action) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next launch would be blamed for it
  throw DeviceError(std::string("CUDA: ") + action + ": " + cudaGetErrorString(status));
}

// Loads a kernel, which its first launch would else do: it must not happen while a graph is
// captured and may wait for whatever runs on the device.
template <class Kernel>
void load_kernel(Kernel* kernel, const char* action) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), action);
}

// Of a launch: configuration errors are known at once, all others at a later synchronisation.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace routestats::cuda
