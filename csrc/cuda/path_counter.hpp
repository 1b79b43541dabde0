#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "memory.hpp"
#include "routestats/device_paths.hpp"

namespace routestats::cuda {

// Exact counts of distinct paths in the memory of the current device. It holds the distinct paths
// and a batch of rows; the table grows as it fills, waiting for the device.
class PathCounter {
 public:
  PathCounter(const PathWindow& window, std::uint64_t expected_paths);

  // Counts an array in device memory whose ids were checked.
  void add(const IdView& view, cudaStream_t stream);

  const PathWindow& window() const { return window_; }
  std::uint32_t distinct() const { return stored_; }
  // Keys [distinct, words] and their counts, in no particular order.
  void read(std::uint32_t* keys, std::uint64_t* counts, cudaStream_t stream) const;

 private:
  PathTableView table(std::uint32_t stored) const;
  void make_room(std::uint64_t keys, cudaStream_t stream);

  const PathWindow window_;
  std::uint64_t capacity_ = 0;  // keys in the store
  std::uint64_t slots_ = 0;
  std::uint32_t stored_ = 0;
  DeviceArray<std::uint64_t> table_slots_;
  DeviceArray<std::uint64_t> table_counts_;
  DeviceArray<std::uint32_t> store_;
  DeviceArray<std::uint32_t> batch_;
  DeviceArray<std::uint32_t> length_;  // of the store
};

}  // namespace routestats::cuda
