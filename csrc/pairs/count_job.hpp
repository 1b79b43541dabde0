#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "pairs/pair_counts.hpp"

namespace routestats {

// What every counter is told.
struct CountJob {
  std::size_t layers;
  std::size_t experts;
  std::size_t slots;
  std::span<const LayerPair> pairs;
  CountTables tables;
  unsigned threads;

  std::size_t cells() const { return experts * experts; }
  std::uint64_t* tile(std::size_t pair) const { return tables.pairs + pair * cells(); }
  std::uint64_t* load(std::size_t layer) const { return tables.expert + layer * experts; }
};

}  // namespace routestats
