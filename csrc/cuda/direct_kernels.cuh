#pragma once

#include <cstdint>

#include "cuda/device_atomics.cuh"
#include "cuda/device_ids.hpp"
#include "cuda/launch.hpp"
#include "pairs/pair_counts.hpp"

// Kernels that count by increments in the tables.
namespace routestats::cuda {

// Loads [layers, experts]: one thread per token and layer.
__global__ void __launch_bounds__(kThreads)
    add_loads(const __grid_constant__ IdView view, std::uint32_t experts, std::uint64_t* table) {
  const std::uint64_t items = view.tokens * view.layers;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < items;
       i += stride) {
    const std::uint64_t token = i / view.layers;
    const auto layer = static_cast<std::uint32_t>(i - token * view.layers);
    std::uint64_t* const row = table + std::uint64_t{layer} * experts;
    for (std::uint32_t k = 0; k < view.slots; ++k) {
      DeviceAtomics::add(row + view.load(token, layer, k), std::uint64_t{1});
    }
  }
}

// Pairs [pairs, experts, experts]: one thread per token and pair of layers.
__global__ void __launch_bounds__(kThreads)
    add_pairs(const __grid_constant__ IdView view, std::uint32_t experts, const LayerPair* pairs,
              std::uint32_t num_pairs, std::uint64_t* table) {
  const std::uint64_t items = view.tokens * num_pairs;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < items;
       i += stride) {
    const std::uint64_t token = i / num_pairs;
    const std::uint64_t place = i - token * num_pairs;
    const LayerPair pair = pairs[place];
    std::uint64_t* const tile = table + place * experts * experts;
    for (std::uint32_t a = 0; a < view.slots; ++a) {
      std::uint64_t* const row = tile + view.load(token, pair.source, a) * experts;
      for (std::uint32_t b = 0; b < view.slots; ++b) {
        DeviceAtomics::add(row + view.load(token, pair.target, b), std::uint64_t{1});
      }
    }
  }
}

}  // namespace routestats::cuda
