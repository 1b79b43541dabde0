#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "routestats/device_counts.hpp"

namespace routestats::cuda {

// Checks an array in device memory, waiting for the device. Throws ExpertOutOfRange, which names
// the first id that is not below `experts` in row-major order; returns whether no token names an
// expert twice at one layer. `first_token` is the number of token 0, `is_signed` how ids are
// written.
bool check_ids(const IdView& view, std::uint64_t experts, std::uint64_t first_token, bool is_signed,
               cudaStream_t stream);

}  // namespace routestats::cuda
