#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "cuda/check.hpp"

namespace routestats::cuda {

inline constexpr unsigned kThreads = 256;  // of an ordinary block

struct LaunchShape {
  dim3 grid;
  unsigned threads = kThreads;
  std::size_t shared_bytes = 0;
};

// Puts a kernel into a stream. A wrong configuration is an error at once; any other error shows
// when something waits for the stream.
template <class... Parameters, class... Arguments>
void launch(const char* action, cudaStream_t stream, const LaunchShape& shape,
            void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), action);
}

// Loads a kernel now. Else its first launch would, which may wait for all work on the device and
// must not happen while a graph is captured.
template <class Kernel>
void load_kernel(Kernel* kernel, const char* action) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), action);
}

}  // namespace routestats::cuda
