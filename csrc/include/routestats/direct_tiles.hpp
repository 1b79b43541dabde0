#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "routestats/expert_view.hpp"

namespace routestats {

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

// Most tokens after which no cell of a 32-bit tile can have overflowed: a token whose slots all
// name one expert adds slots^2 to one cell. Throws std::invalid_argument when that is none.
std::size_t tile_capacity(std::size_t slots);

// tile[e, f] += how many (source slot, target slot) of the block hold (e, f), by one increment
// each.
void add_direct_tile(const LayerMajorIds& ids, std::size_t source, std::size_t target,
                     std::size_t experts, std::uint32_t* tile);

}  // namespace routestats
