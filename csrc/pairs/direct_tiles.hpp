#pragma once

#include <cstddef>
#include <cstdint>

#include "base/layer_major.hpp"

namespace routestats {

// Most tokens after which no cell of a 32-bit tile can have overflowed: a token whose slots all
// name one expert adds slots^2 to one cell. Throws std::invalid_argument when that is none.
std::size_t tile_capacity(std::size_t slots);

// tile[e, f] += how many (source slot, target slot) of the block hold (e, f), by one increment
// each.
void add_direct_tile(const LayerMajorIds& ids, std::size_t source, std::size_t target,
                     std::size_t experts, std::uint32_t* tile);

}  // namespace routestats
