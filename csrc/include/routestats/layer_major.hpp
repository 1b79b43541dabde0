#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "routestats/expert_view.hpp"

namespace routestats {

// Writes the ids of a view, which must be below 65,536, as [layers, tokens, slots], with
// `layer_items` from one layer to the next.
void copy_layer_major(const ExpertView& view, std::uint16_t* ids, std::size_t layer_items);

// A block of tokens in layer-major order, [layers, tokens, slots], so that a pair of layers is read
// as two runs of memory.
class LayerMajorIds {
 public:
  LayerMajorIds(std::size_t layers, std::size_t slots, std::size_t max_tokens);

  // Takes the block's ids, which must be checked already and below 65,536.
  void fill(const ExpertView& block, unsigned threads);

  const std::uint16_t* layer(std::size_t layer) const {
    return ids_.data() + layer * tokens_ * slots_;
  }
  std::size_t tokens() const { return tokens_; }
  std::size_t slots() const { return slots_; }

 private:
  const std::size_t layers_;
  const std::size_t slots_;
  std::size_t tokens_ = 0;
  std::vector<std::uint16_t> ids_;
};

}  // namespace routestats
