#include "routestats/direct_tiles.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "routestats/workers.hpp"

namespace routestats {
namespace {

constexpr std::size_t kSliceTokens = 1024;

// FixedSlots = 0 reads the number of slots at run time; the common ones are compiled in, which
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

LayerMajorIds::LayerMajorIds(std::size_t layers, std::size_t slots, std::size_t max_tokens)
    : layers_(layers), slots_(slots), ids_(layers * slots * max_tokens) {}

void LayerMajorIds::fill(const ExpertView& block, unsigned threads) {
  tokens_ = block.tokens;
  const std::size_t slices = (tokens_ + kSliceTokens - 1) / kSliceTokens;
  with_id_type(block, [&]<class Id>(Id) {
    run_workers(slices, threads, [&](ItemQueue& queue) {
      while (const auto slice = queue.next()) {
        const std::size_t first = *slice * kSliceTokens;
        const std::size_t last = std::min(first + kSliceTokens, tokens_);
        for (std::size_t t = first; t < last; ++t) {
          std::uint16_t* out = ids_.data() + t * slots_;
          for (std::size_t l = 0; l < layers_; ++l, out += tokens_ * slots_) {
            const std::byte* row = block.row(t, l);
            for (std::size_t k = 0; k < slots_; ++k, row += block.slot_stride) {
              Id id;
              std::memcpy(&id, row, sizeof id);
              out[k] = static_cast<std::uint16_t>(id);
            }
          }
        }
      }
    });
  });
}

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
