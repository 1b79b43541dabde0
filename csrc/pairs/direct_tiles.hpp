#pragma once

#include <cstddef>
#include <cstdint>

#include "base/layer_major.hpp"

namespace routestats {

// The most tokens that a tile of 32-bit cells can count. A token whose slots all name one expert
// adds slots^2 to one cell. Throws std::invalid_argument if that is no token.
std::size_t tile_capacity(std::size_t slots);

// tile[e, f] += the number of (source slot, target slot) of the block that hold (e, f), by one
// increment each.
void add_direct_tile(const LayerMajorIds& ids, std::size_t source, std::size_t target,
                     std::size_t experts, std::uint32_t* tile);

}  // namespace routestats
