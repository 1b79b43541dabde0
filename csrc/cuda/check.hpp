#pragma once

#include <cuda_runtime.h>

#include <string>

#include "cuda/device_error.hpp"

namespace routestats::cuda {

inline void check(cudaError_t status, const char* action) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next caller would find it again
  throw DeviceError(std::string("CUDA: ") + action + ": " + cudaGetErrorString(status));
}

}  // namespace routestats::cuda
