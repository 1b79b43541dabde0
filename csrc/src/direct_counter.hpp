#pragma once

#include "count_job.hpp"
#include "routestats/layer_major.hpp"

namespace routestats {

// Counts by one increment per pair of slots, whatever the ids.
class DirectCounter {
 public:
  DirectCounter(const CountJob& job, std::size_t max_tokens);

  // Pairs with these source layers, and the loads of the layers.
  void add(const ExpertView& block, std::size_t first_layer, std::size_t layers);

 private:
  const CountJob& job_;
  LayerMajorIds ids_;
};

}  // namespace routestats
