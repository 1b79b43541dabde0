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
  cudaGetLastError();  // else it would be found again by whoever asks for the last error
  throw DeviceError(std::string("CUDA: ") + action + ": " + cudaGetErrorString(status));
}

}  // namespace routestats::cuda
