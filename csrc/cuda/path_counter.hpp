#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/device_paths.hpp"
#include "cuda/host_pieces.hpp"
#include "cuda/id_check.hpp"
#include "cuda/memory.hpp"

namespace routestats::cuda {

// Exact counts of distinct paths, in the memory of the device that is current when the counter is
// made. It holds the distinct paths and a batch of rows; its table grows as it fills. All work is
// on one stream, which outlives the counter. Every call waits for the stream. Any thread may call,
// one at a time.
class PathCounter {
 public:
  // `sets`: paths of sets, in which no layer may name an expert twice.
  PathCounter(const PathWindow& window, std::uint64_t experts, bool sets,
              std::uint64_t expected_paths, cudaStream_t stream);

  // Checks and counts an array in device memory. Before anything is counted, it throws
  // ExpertOutOfRange for a bad id in any layer and slot, and ExpertRepeated for a layer of the
  // window.
  void add(const IdView& view, const IdNames& names);

  // The same for an array without gaps in host memory, which is copied in pieces. On an error the
  // earlier pieces have been counted.
  void add_host(const IdView& view, const IdNames& names);

  const PathWindow& window() const { return window_; }
  std::uint32_t distinct() const { return stored_; }
  // Keys [distinct, words] and their counts, in no particular order.
  void read(std::uint32_t* keys, std::uint64_t* counts) const;

 private:
  PathTableView table(std::uint32_t stored) const;
  void make_room(std::uint64_t keys);
  void count(const IdView& view);

  const int device_;
  const cudaStream_t stream_;
  const PathWindow window_;
  const std::uint64_t experts_;
  const bool sets_;
  std::uint64_t capacity_ = 0;  // keys in the store
  std::uint64_t slots_ = 0;
  std::uint32_t stored_ = 0;
  StreamArray<std::uint64_t> table_slots_;
  StreamArray<std::uint64_t> table_counts_;
  StreamArray<std::uint32_t> store_;
  StreamScratch<std::uint32_t> batch_;
  StreamArray<std::uint32_t> length_;  // of the store
  HostPieces pieces_;
};

}  // namespace routestats::cuda
