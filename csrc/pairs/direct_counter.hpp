#pragma once

#include <cstddef>
#include <span>

#include "base/layer_major.hpp"
#include "base/token_ranges.hpp"
#include "pairs/count_job.hpp"

namespace routestats {

// Counts by one increment per pair of slots, whatever the ids.
class DirectCounter {
 public:
  // Counts `batch_tokens` tokens at a time.
  DirectCounter(const CountJob& job, std::size_t batch_tokens);

  // Adds the pairs that begin at these source layers, and the loads of the layers. A batch is
  // gathered from several ranges where needed, because each batch costs a cleared tile and an
  // addition to the table for every pair.
  void add(const ExpertView& view, std::span<const TokenRange> tokens, std::size_t first_layer,
           std::size_t layers);

 private:
  void add_batch(const ExpertView& view, std::span<const TokenRange> tokens,
                 std::size_t first_layer, std::size_t layers);

  const CountJob& job_;
  const std::size_t batch_tokens_;
  LayerMajorIds ids_;
};

}  // namespace routestats
