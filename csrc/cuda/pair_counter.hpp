#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cuda/device_ids.hpp"
#include "cuda/device_lists.hpp"
#include "cuda/device_method.hpp"
#include "cuda/host_pieces.hpp"
#include "cuda/id_check.hpp"
#include "cuda/memory.hpp"
#include "pairs/pair_counts.hpp"

namespace routestats::cuda {

// Counts of experts and of pairs of experts, in the memory of the device that is current when the
// counter is made: the tables of count_pairs, with the same values. All work is on one stream,
// which outlives the counter. Any thread may call, one at a time.
class PairCounter {
 public:
  // Counts the first `slots` slots of each layer.
  PairCounter(std::uint32_t layers, std::uint32_t experts, std::uint32_t slots,
              std::vector<LayerPair> pairs, cudaStream_t stream);

  // Checks all slots of an array in device memory, for which it waits for the stream. Then counts
  // the array in blocks of bounded memory, without waiting. Returns the method: the one asked for,
  // or the one that choose_method names; `direct` if the device has not the memory for that. Throws
  // ExpertOutOfRange, and std::invalid_argument for a method that cannot count the array, before
  // anything is counted.
  DeviceMethod add(const IdView& all_slots, const IdNames& names,
                   std::optional<DeviceMethod> method);

  // The same for an array without gaps in host memory, which is copied in pieces. On an error the
  // earlier pieces have been counted.
  void add_host(const IdView& all_slots, const IdNames& names, std::optional<DeviceMethod> method);

  // Adds the counts to tables in host memory, waiting for the stream.
  void read(const CountTables& tables) const;
  void clear();

  // The extents of those tables.
  std::uint32_t layers() const { return layers_; }
  std::uint32_t experts() const { return experts_; }
  std::size_t pairs() const { return pairs_.size(); }

 private:
  void upload_plan();
  void add_direct(const IdView& view);
  void reserve_lists(std::uint64_t tokens);  // all or nothing
  void add_lists(const IdView& view);
  void add_list_block(const IdView& block);
  ListLayout lists() const { return {layers_, experts_, slots_}; }

  const int device_;
  const cudaStream_t stream_;
  const std::uint32_t layers_;
  const std::uint32_t experts_;
  const std::uint32_t slots_;
  const std::vector<LayerPair> pairs_;
  std::uint64_t shared_bytes_ = 0;
  unsigned multiprocessors_ = 0;

  StreamArray<std::uint64_t> expert_table_;
  StreamArray<std::uint64_t> pair_table_;
  StreamArray<LayerPair> pair_list_;
  StreamArray<std::uint32_t> places_;  // [layers, layers], for ListPlan
  std::size_t num_tiles_ = 0;
  StreamArray<uint2> tiles_;  // source layers and groups of columns that share a counted cell
  // The lists and rows of one block; see ListLayout.
  StreamScratch<std::uint32_t> rows_;
  StreamScratch<std::uint16_t> entries_;
  StreamScratch<std::uint32_t> begins_;
  HostPieces pieces_;
  PinnedArray<std::uint64_t> read_;  // made once: pinning memory may stop an engine beside it
};

}  // namespace routestats::cuda
