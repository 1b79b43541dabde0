#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "memory.hpp"
#include "routestats/device_counts.hpp"
#include "routestats/device_method.hpp"
#include "routestats/expert_view.hpp"
#include "routestats/pair_counts.hpp"
#include "routestats/ring_index.hpp"

namespace routestats::cuda {

// Counts of experts and of pairs of experts in the memory of the current device: the tables of
// count_pairs, with the same values.
class PairCounter {
 public:
  // Counts the first `slots` slots of each layer.
  PairCounter(std::uint32_t layers, std::uint32_t experts, std::uint32_t slots,
              std::vector<LayerPair> pairs);

  // Checks all slots of an array in device memory, waiting for the device, then counts it, in
  // blocks of bounded memory and without waiting. Throws ExpertOutOfRange before anything is
  // counted; `first_token` is the number of token 0 and `is_signed` how ids are written there.
  DeviceMethod add(const IdView& all_slots, std::uint64_t first_token, bool is_signed,
                   std::optional<DeviceMethod> method, cudaStream_t stream);

  // The same of an array without gaps in host memory, which is copied in pieces.
  void add_host(const IdView& all_slots, std::uint64_t first_token, bool is_signed,
                cudaStream_t stream);

  // Counts rows of a capture ring, whose ids are known to be valid. Returns at once.
  void add_ring(const void* ids, std::uint32_t id_bytes, const RingExtents& extents,
                std::uint64_t first_slot, std::uint64_t rows, cudaStream_t stream);

  // Adds the counts to tables in host memory, waiting for the device.
  void read(const CountTables& tables, cudaStream_t stream) const;
  void clear(cudaStream_t stream);

  std::size_t pairs() const { return pairs_.size(); }

 private:
  void count(const IdView& view, DeviceMethod method, cudaStream_t stream);
  void count_by_increments(const IdView& block, bool shared, cudaStream_t stream);
  void count_by_bits(const IdView& block, bool tensor, cudaStream_t stream);
  void load_experts(const IdView& block, cudaStream_t stream);
  std::uint64_t block_tokens(DeviceMethod method) const;
  std::uint32_t columns() const { return layers_ * experts_; }

  const std::uint32_t layers_;
  const std::uint32_t experts_;
  const std::uint32_t slots_;
  const std::vector<LayerPair> pairs_;
  std::uint64_t shared_bytes_ = 0;
  unsigned multiprocessors_ = 0;

  DeviceArray<std::uint64_t> expert_table_;
  DeviceArray<std::uint64_t> pair_table_;
  DeviceArray<LayerPair> pair_list_;
  DeviceArray<std::uint32_t> places_;  // [layers, layers], for GramPlan
  std::vector<uint2> gram_tiles_;      // pairs of column tiles that hold a counted cell
  DeviceArray<uint2> gram_tile_list_;
  // Of one block; made when first needed.
  DeviceArray<std::uint16_t> packed_;  // [layers, tokens, slots]
  DeviceArray<std::uint32_t> bits_;    // [columns, words]
  DeviceArray<char> staging_;          // ids from the host
};

}  // namespace routestats::cuda
