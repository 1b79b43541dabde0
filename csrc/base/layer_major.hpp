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

// Some tokens in layer-major order, [layers, tokens, slots]: the ids of a layer lie side by side.
class LayerMajorIds {
 public:
  LayerMajorIds(std::size_t layers, std::size_t slots, std::size_t max_tokens);

  // Replaces the content by the ids of these ranges of a view, one range after the other. The ids
  // must be checked already and below 65,536, and there must be room for them.
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
