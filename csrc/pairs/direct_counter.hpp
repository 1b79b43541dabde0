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
  // Takes `batch_tokens` at a time.
  DirectCounter(const CountJob& job, std::size_t batch_tokens);

  // Adds the pairs with these source layers, and the loads of the layers. A batch is gathered from
  // as many ranges as it takes: each costs every pair a tile to clear and to add to the table.
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
