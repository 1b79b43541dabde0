#pragma once

#include <cstddef>
#include <functional>

#include "cuda_runtime.h"

namespace emulated_cuda {

inline constexpr std::size_t kMostShared = 227u << 10;  // bytes of a block

// Runs a kernel: blocks one after another in a random order, the threads of a block in turns.
void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& thread);

}  // namespace emulated_cuda
