#include "pairs/direct_tiles.hpp"

#include <limits>
#include <stdexcept>

namespace routestats {
namespace {

// FixedSlots = 0 reads the number of slots at run time. The common numbers are compiled in, which
// unrolls the two inner loops.
template <std::size_t FixedSlots>
void add_tile(const std::uint16_t* source, const std::uint16_t* target, std::size_t tokens,
              std::size_t run_time_slots, std::size_t experts, std::uint32_t* tile) {
  const std::size_t slots = FixedSlots != 0 ? FixedSlots : run_time_slots;
  for (std::size_t t = 0; t < tokens; ++t, source += slots, target += slots) {
    for (std::size_t i = 0; i < slots; ++i) {
      std::uint32_t* row = tile + source[i] * experts;
      for (std::size_t j = 0; j < slots; ++j) ++row[target[j]];
    }
  }
}

}  // namespace

std::size_t tile_capacity(std::size_t slots) {
  const std::size_t capacity = std::numeric_limits<std::uint32_t>::max() / (slots * slots);
  if (capacity == 0) throw std::invalid_argument("top_k: expected at most 65535");
  return capacity;
}

void add_direct_tile(const LayerMajorIds& ids, std::size_t source, std::size_t target,
                     std::size_t experts, std::uint32_t* tile) {
  const auto add = [&] {
    switch (ids.slots()) {
      case 1:
        return add_tile<1>;
      case 2:
        return add_tile<2>;
      case 4:
        return add_tile<4>;
      case 6:
        return add_tile<6>;
      case 8:
        return add_tile<8>;
      default:
        return add_tile<0>;
    }
  }();
  add(ids.layer(source), ids.layer(target), ids.tokens(), ids.slots(), experts, tile);
}

}  // namespace routestats
