#pragma once

#include <cstdint>

#include "cuda/device_atomics.cuh"
#include "cuda/device_lists.hpp"
#include "cuda/launch.hpp"

// Kernels that count by lists and rows of bits. device_lists.hpp has the work of a thread.
namespace routestats::cuda {

// The lists of one block of tokens (blockIdx.x) at one layer (blockIdx.y), and the layer's loads.
__global__ void __launch_bounds__(kThreads)
    make_lists(const __grid_constant__ IdView view, const __grid_constant__ ListLayout layout,
               std::uint16_t* all_entries, std::uint32_t* all_begins, std::uint64_t* table) {
  auto* const list_memory = dynamic_shared<uint4>();
  auto* const entries = reinterpret_cast<std::uint16_t*>(list_memory);
  auto* const lengths = reinterpret_cast<std::uint32_t*>(entries + layout.capacity());
  std::uint32_t* const next = lengths + layout.experts;
  std::uint32_t* const begins = next + layout.experts;

  const std::uint32_t layer = blockIdx.y;
  const std::uint64_t first = std::uint64_t{blockIdx.x} * kListBlockTokens;
  const std::uint64_t left = view.tokens - first;
  const IdView block = view.from(first, left < kListBlockTokens ? left : kListBlockTokens);
  for (std::uint32_t e = threadIdx.x; e < layout.experts; e += kThreads) lengths[e] = 0;
  __syncthreads();
  for (std::uint64_t t = threadIdx.x; t < block.tokens; t += kThreads) {
    count_lengths<DeviceAtomics>(block, layer, t, lengths);
  }
  __syncthreads();
  if (threadIdx.x == 0) lay_out_lists(lengths, layout.experts, begins, next);
  __syncthreads();
  for (std::uint64_t t = threadIdx.x; t < block.tokens; t += kThreads) {
    add_to_lists<DeviceAtomics>(block, layer, t, next, entries);
  }
  __syncthreads();
  std::uint64_t* const loads = table + std::uint64_t{layer} * layout.experts;
  std::uint32_t* const begins_out = all_begins + layout.begins(blockIdx.x, layer);
  for (std::uint32_t e = threadIdx.x; e < layout.experts; e += kThreads) {
    fill_up_list(begins, next, e, entries);
    if (lengths[e] != 0) DeviceAtomics::add(loads + e, std::uint64_t{lengths[e]});
    begins_out[e] = begins[e];
  }
  if (threadIdx.x == 0) begins_out[layout.experts] = begins[layout.experts];
  __syncthreads();
  auto* const out = reinterpret_cast<uint4*>(all_entries + layout.entries(blockIdx.x, layer));
  const std::uint32_t vectors = begins[layout.experts] / kDeviceListStep;
  for (std::uint32_t i = threadIdx.x; i < vectors; i += kThreads) out[i] = list_memory[i];
}

// The rows of a group of columns (blockIdx.y): one thread per token and word.
__global__ void __launch_bounds__(kThreads)
    set_rows(const __grid_constant__ IdView view, const __grid_constant__ ListLayout layout,
             std::uint32_t* rows) {
  const std::uint64_t index = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::uint64_t token = index / kListRowWords;
  if (token >= view.tokens) return;
  const auto word = static_cast<std::uint32_t>(index % kListRowWords);
  rows[layout.row_word(blockIdx.y, view.tokens, token, word)] =
      bits_of_token(view, layout.experts, token, blockIdx.y * kListRowColumns + word * 32);
}

inline constexpr unsigned kListThreads = 512;
inline constexpr std::uint32_t kListSources = kListThreads / kListRowWords;  // lists side by side
// Sums the bits of a group of columns (tiles[blockIdx.x].y) over the lists of a source layer
// (tiles[blockIdx.x].x). A block of threads takes kListSources experts (blockIdx.z) and a share of
// the blocks of tokens (blockIdx.y), at most kListShareBlocks.
__global__ void __launch_bounds__(kListThreads, 2)
    sum_lists(const std::uint32_t* rows, std::uint64_t tokens, const std::uint16_t* all_entries,
              const std::uint32_t* all_begins, const __grid_constant__ ListLayout layout,
              const uint2* tiles, std::uint32_t share, const __grid_constant__ ListPlan plan,
              std::uint64_t* table) {
  auto* const row_memory = dynamic_shared<uint4>();
  constexpr std::uint32_t kVectors = kListRowWords / 4;  // of a row
  const auto* const words = reinterpret_cast<const std::uint32_t*>(row_memory);
  const std::uint32_t layer = tiles[blockIdx.x].x;
  const std::uint32_t group = tiles[blockIdx.x].y;
  const std::uint32_t expert = blockIdx.z * kListSources + threadIdx.x / kListRowWords;
  const std::uint32_t word = threadIdx.x % kListRowWords;
  if (threadIdx.x < kVectors) {
    row_memory[kZeroRow * kVectors + threadIdx.x] = make_uint4(0, 0, 0, 0);
  }
  BitSums sums;
  sums.clear();
  const std::uint64_t first = std::uint64_t{blockIdx.y} * share;
  for (std::uint64_t block = first; block < first + share && block * kListBlockTokens < tokens;
       ++block) {
    const std::uint64_t left = tokens - block * kListBlockTokens;
    const std::uint32_t vectors =
        static_cast<std::uint32_t>(left < kListBlockTokens ? left : kListBlockTokens) * kVectors;
    const auto* const from = reinterpret_cast<const uint4*>(
        rows + layout.row_word(group, tokens, block * kListBlockTokens, 0));
    __syncthreads();  // no thread still reads the block before
    for (std::uint32_t i = threadIdx.x; i < vectors; i += kListThreads) {
      row_memory[i] = __ldg(from + i);
    }
    __syncthreads();
    const std::uint32_t* const begins = all_begins + layout.begins(block, layer);
    std::uint32_t begin = 0;
    std::uint32_t steps = 0;
    if (expert < layout.experts) {
      begin = begins[expert];
      steps = (begins[expert + 1] - begin) / kDeviceListStep;
    }
    const auto* const entries =
        reinterpret_cast<const uint4*>(all_entries + layout.entries(block, layer) + begin);
    const std::uint32_t most = __reduce_max_sync(0xffffffffu, steps);
    for (std::uint32_t i = 0; i < most; ++i) {
      constexpr std::uint32_t kZeros = kZeroRow | kZeroRow << 16;
      const uint4 two = i < steps ? __ldg(entries + i) : make_uint4(kZeros, kZeros, kZeros, kZeros);
      const auto row = [&](std::uint32_t place) { return words[place * kListRowWords + word]; };
      const std::uint32_t read[kDeviceListStep] = {
          row(two.x & 0xffffu), row(two.x >> 16), row(two.y & 0xffffu), row(two.y >> 16),
          row(two.z & 0xffffu), row(two.z >> 16), row(two.w & 0xffffu), row(two.w >> 16)};
      sums.add(read);
    }
  }
  sums.finish();
  if (expert >= layout.experts) return;
  for (std::uint32_t counter = 0; counter < 32; ++counter) {
    const std::uint32_t sum = sums.count(counter);
    if (sum == 0) continue;
    const std::uint64_t cell =
        plan.cell(layer * layout.experts + expert, group * kListRowColumns + word * 32 + counter);
    if (cell != ~std::uint64_t{0}) DeviceAtomics::add(table + cell, std::uint64_t{sum});
  }
}

}  // namespace routestats::cuda
