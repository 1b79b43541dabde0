#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/device_ids.hpp"

namespace routestats::cuda {

// How messages write the ids of an array.
struct IdNames {
  std::uint64_t first_token;  // the number of token 0
  bool is_signed;
};

// Loads the kernels of both functions.
void load_check_kernels();

// Checks an array in device memory, waiting for the stream. Throws ExpertOutOfRange, which names
// the first id that is not in 0..experts - 1 in row-major order; returns whether no token names an
// expert twice at one layer.
bool check_ids(const IdView& view, std::uint64_t experts, const IdNames& names,
               cudaStream_t stream);

// Throws ExpertRepeated, which names the first place where a layer from `first_layer` on, `layers`
// of them, names an expert twice. The ids are in range.
void check_sets(const IdView& view, std::uint32_t first_layer, std::uint32_t layers,
                const IdNames& names, cudaStream_t stream);

}  // namespace routestats::cuda
