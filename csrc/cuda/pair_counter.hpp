#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "cuda/device_counts.hpp"
#include "cuda/device_lists.hpp"
#include "cuda/device_method.hpp"
#include "cuda/host_pieces.hpp"
#include "cuda/id_check.hpp"
#include "cuda/memory.hpp"
#include "cuda/method_times.hpp"
#include "pairs/pair_counts.hpp"

namespace routestats::cuda {

// What the methods took on this process's devices.
MethodTimes& method_times();

// A kernel's first launch loads it, which may wait for whatever runs on the device.
void load_pair_kernels(std::uint64_t shared_bytes);

// Counts of experts and of pairs of experts in the memory of the device that was current when it
// was made: the tables of count_pairs, with the same values. All work is on one stream, which
// outlives the counter; any thread may call, one at a time.
class PairCounter {
 public:
  // Counts the first `slots` slots of each layer.
  PairCounter(std::uint32_t layers, std::uint32_t experts, std::uint32_t slots,
              std::vector<LayerPair> pairs, cudaStream_t stream);

  // Checks all slots of an array in device memory, waiting for the stream, then counts it, in
  // blocks of bounded memory and without waiting, except where methods are still being tried
  // because none is asked for. Returns the last one taken. Throws ExpertOutOfRange, and
  // std::invalid_argument for a method that cannot count it, before anything is counted.
  DeviceMethod add(const IdView& all_slots, const IdNames& names,
                   std::optional<DeviceMethod> method);

  // The same of an array without gaps in host memory, which is copied in pieces; those before a
  // piece with a fault are counted.
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
  DeviceMethod add_by_trials(const IdView& view, const DeviceWork& work);
  // Takes the memory that `count` needs, which must not be timed with it.
  void reserve(std::uint64_t tokens, DeviceMethod method);
  void give_back_all_but(DeviceMethod method);
  void count(const IdView& block, DeviceMethod method);
  double timed(const IdView& block, DeviceMethod method);  // in milliseconds
  void count_by_increments(const IdView& block, bool shared);
  void count_by_bits(const IdView& block, bool tensor);
  void count_by_lists(const IdView& block);
  void load_experts(const IdView& block);
  std::uint64_t block_tokens(DeviceMethod method) const;
  std::uint64_t striding(std::uint64_t items) const;
  std::uint32_t columns() const { return layers_ * experts_; }
  ListLayout lists() const { return {layers_, experts_, slots_}; }

  const int device_;
  const cudaStream_t stream_;
  const std::uint32_t layers_;
  const std::uint32_t experts_;
  const std::uint32_t slots_;
  const std::vector<LayerPair> pairs_;
  const Event begun_;
  const Event done_;
  std::uint64_t shared_bytes_ = 0;
  unsigned multiprocessors_ = 0;

  StreamArray<std::uint64_t> expert_table_;
  StreamArray<std::uint64_t> pair_table_;
  StreamArray<LayerPair> pair_list_;
  StreamArray<std::uint32_t> places_;  // [layers, layers], for GramPlan
  std::size_t gram_tiles_ = 0;
  StreamArray<uint2> gram_tile_list_;  // pairs of column tiles that hold a counted cell
  std::size_t list_tiles_ = 0;
  StreamArray<uint2> list_tile_list_;  // source layer and group of columns that do
  // Of one block.
  StreamScratch<std::uint16_t> packed_;   // [layers, tokens, slots]
  StreamScratch<std::uint32_t> bits_;     // [columns, words]
  StreamScratch<std::uint32_t> rows_;     // [groups, tokens, kListRowWords]
  StreamScratch<std::uint16_t> entries_;  // of lists; see ListLayout
  StreamScratch<std::uint32_t> begins_;
  HostPieces pieces_;
  bool tried_ = false;               // methods, whose memory is still there
  PinnedArray<std::uint64_t> read_;  // made once: to pin memory may stop an engine that runs beside
};

}  // namespace routestats::cuda
