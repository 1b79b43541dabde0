#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/expert_view.hpp"
#include "base/token_ranges.hpp"

namespace routestats {

// Writes the ids of a view, which must be below 65,536, as [layers, tokens, slots], with
// `layer_items` from one layer to the next.
void copy_layer_major(const ExpertView& view, std::uint16_t* ids, std::size_t layer_items);

// Some tokens in layer-major order, [layers, tokens, slots], so that a pair of layers is read as
// two runs of memory.
class LayerMajorIds {
 public:
  LayerMajorIds(std::size_t layers, std::size_t slots, std::size_t max_tokens);

  // Takes the ids of the ranges of a view, one behind the other, in place of what was there. They
  // must be checked already and below 65,536, and have room.
  void fill(const ExpertView& view, std::span<const TokenRange> ranges, unsigned threads);

  const std::uint16_t* layer(std::size_t layer) const {
    return ids_.data() + layer * tokens_ * slots_;
  }
  std::size_t tokens() const { return tokens_; }
  std::size_t slots() const { return slots_; }

 private:
  const std::size_t slots_;
  std::size_t tokens_ = 0;
  std::vector<std::uint16_t> ids_;
};

}  // namespace routestats
