#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.hpp"

// What the counting kernels do, one thread at a time: compiled for the device by nvcc, and for the
// host in the tests, which hold it to the CPU's counts.
namespace routestats {

// A [tokens, layers, slots] array of integers in the memory of whoever reads it. Strides are in
// bytes; items are aligned.
struct IdView {
  const char* data;
  std::uint32_t item_bytes;  // 1, 2, 4 or 8
  std::uint64_t tokens;
  std::uint32_t layers;
  std::uint32_t slots;
  std::int64_t token_stride;
  std::int64_t layer_stride;
  std::int64_t slot_stride;

  // As unsigned: a negative id becomes a huge one, above any limit.
  ROUTESTATS_HOST_DEVICE std::uint64_t load(std::uint64_t token, std::uint32_t layer,
                                            std::uint32_t slot) const {
    const char* item = data + static_cast<std::int64_t>(token) * token_stride +
                       static_cast<std::int64_t>(layer) * layer_stride +
                       static_cast<std::int64_t>(slot) * slot_stride;
    switch (item_bytes) {
      case 1:
        return *reinterpret_cast<const std::uint8_t*>(item);
      case 2:
        return *reinterpret_cast<const std::uint16_t*>(item);
      case 4:
        return *reinterpret_cast<const std::uint32_t*>(item);
      default:
        return *reinterpret_cast<const std::uint64_t*>(item);
    }
  }
  ROUTESTATS_HOST_DEVICE IdView from(std::uint64_t first, std::uint64_t count) const {
    IdView part = *this;
    part.data += static_cast<std::int64_t>(first) * token_stride;
    part.tokens = count;
    return part;
  }
  ROUTESTATS_HOST_DEVICE IdView layers_from(std::uint32_t first, std::uint32_t count) const {
    IdView part = *this;
    part.data += static_cast<std::int64_t>(first) * layer_stride;
    part.layers = count;
    return part;
  }
};

// --- checking ---

// What is wrong with an array: the place of its first id that is no expert's and of the first that
// an earlier slot of its layer holds already, in row-major order:
// (token * layers + layer) * slots + slot, or kNowhere.
inline constexpr std::uint64_t kNowhere = ~std::uint64_t{0};
struct IdFaults {
  std::uint64_t first_bad = kNowhere;
  std::uint64_t first_repeated = kNowhere;
};

// Read as unsigned, ids from here on are no experts. Negative ones fill the upper half of their
// type, which may lie below the number of experts.
ROUTESTATS_HOST_DEVICE constexpr std::uint64_t id_limit(std::uint64_t experts,
                                                        std::uint32_t item_bytes, bool is_signed) {
  const std::uint64_t least_negative = std::uint64_t{1} << (8 * item_bytes - 1);
  return is_signed && least_negative < experts ? least_negative : experts;
}

// One thread per token and layer. `Atomics::minimum(word, value)` lowers a word.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void check_choices(const IdView& view, std::uint64_t limit,
                                                 std::uint64_t token, std::uint32_t layer,
                                                 IdFaults* faults) {
  const std::uint64_t place = (token * view.layers + layer) * view.slots;
  std::uint64_t repeated = kNowhere;
  for (std::uint32_t k = 0; k < view.slots; ++k) {
    const std::uint64_t id = view.load(token, layer, k);
    if (id >= limit) {
      Atomics::minimum(&faults->first_bad, place + k);
      return;
    }
    for (std::uint32_t j = 0; j < k && repeated == kNowhere; ++j) {
      if (view.load(token, layer, j) == id) repeated = place + k;
    }
  }
  if (repeated != kNowhere) Atomics::minimum(&faults->first_repeated, repeated);
}

// --- increments: one per pair of slots ---

// Rows first_row.. of a tile [experts, experts]; `tile` points at the first of them.
struct TileRows {
  std::uint32_t first_row;
  std::uint32_t rows;
  std::uint32_t experts;
};

// One thread per token: its ids at two layers, [slots] each, into narrow cells.
template <std::uint32_t FixedSlots, class Atomics>
ROUTESTATS_HOST_DEVICE inline void add_token(const std::uint16_t* source,
                                             const std::uint16_t* target,
                                             std::uint32_t run_time_slots, const TileRows& rows,
                                             std::uint32_t* tile) {
  const std::uint32_t slots = FixedSlots != 0 ? FixedSlots : run_time_slots;
  for (std::uint32_t i = 0; i < slots; ++i) {
    const std::uint32_t row = std::uint32_t{source[i]} - rows.first_row;  // below it: huge
    if (row >= rows.rows) continue;
    std::uint32_t* cells = tile + row * rows.experts;
    for (std::uint32_t j = 0; j < slots; ++j) Atomics::add(cells + target[j], 1u);
  }
}

// --- bits: a column per (layer, expert), layers first; bit t of a column is token t ---

// Bits of one token in the 32 columns from `first_column` on.
ROUTESTATS_HOST_DEVICE inline std::uint32_t bits_of_token(const IdView& view, std::uint32_t experts,
                                                          std::uint64_t token,
                                                          std::uint32_t first_column) {
  if (token >= view.tokens) return 0;
  std::uint32_t bits = 0;
  const std::uint32_t last_layer = (first_column + 31) / experts;
  for (std::uint32_t layer = first_column / experts; layer <= last_layer && layer < view.layers;
       ++layer) {
    for (std::uint32_t k = 0; k < view.slots; ++k) {
      const auto id = static_cast<std::uint32_t>(view.load(token, layer, k));
      const std::uint32_t place = layer * experts + id - first_column;  // before it: huge
      if (place < 32) bits |= 1u << place;
    }
  }
  return bits;
}

// One of five stages (16, 8, 4, 2, 1) that turn 32 lanes' words into 32 columns' words: lane i ends
// with bit i of every lane's word. `other` is the word of lane ^ distance.
ROUTESTATS_HOST_DEVICE constexpr std::uint32_t transpose_stage(std::uint32_t own,
                                                               std::uint32_t other,
                                                               std::uint32_t lane,
                                                               std::uint32_t distance) {
  // The low half of each group of 2 * distance bits.
  std::uint32_t low = 0xffffu;
  if (distance == 8) low = 0x00ff00ffu;
  if (distance == 4) low = 0x0f0f0f0fu;
  if (distance == 2) low = 0x33333333u;
  if (distance == 1) low = 0x55555555u;
  return (lane & distance) == 0 ? (own & low) | ((other & low) << distance)
                                : (own & ~low) | ((other >> distance) & low);
}

// Columns of the product of the bits with themselves, [columns, columns], and where a cell of it is
// counted. `places` is [layers, layers]: the pair's place in the plan, or kNotCounted.
inline constexpr std::uint32_t kNotCounted = ~std::uint32_t{0};

struct GramPlan {
  const std::uint32_t* places;
  std::uint32_t layers;
  std::uint32_t experts;

  // Index in the table [pairs, experts, experts], or ~0 for a cell that is not counted.
  ROUTESTATS_HOST_DEVICE std::uint64_t cell(std::uint32_t row, std::uint32_t column) const {
    const std::uint32_t source = row / experts;
    const std::uint32_t target = column / experts;
    if (source >= layers || target >= layers) return ~std::uint64_t{0};
    const std::uint32_t place = places[source * layers + target];
    if (place == kNotCounted) return ~std::uint64_t{0};
    return (std::uint64_t{place} * experts + (row - source * experts)) * experts +
           (column - target * experts);
  }
};

inline constexpr std::uint32_t kColumnTile = 128;  // columns of a block's tile, both ways

// Where a warp's fragments of the product of 16 x 8 columns over 256 tokens lie (PTX ISA,
// mma.m16n8k256 with .b1): which column a lane's register of A belongs to, and which cell a
// register of the sum is. A lane reads words 4 * (lane % 4) .. + 3 of every 16 words of a column,
// two for each of two products; the order of the tokens within a product does not matter as long as
// A and B agree on it.
ROUTESTATS_HOST_DEVICE constexpr std::uint32_t fragment_row(std::uint32_t lane,
                                                            std::uint32_t half) {
  return lane / 4 + 8 * half;
}
ROUTESTATS_HOST_DEVICE constexpr std::uint32_t fragment_word(std::uint32_t lane) {
  return lane % 4 * 4;
}
ROUTESTATS_HOST_DEVICE constexpr std::uint32_t sum_row(std::uint32_t lane, std::uint32_t i) {
  return lane / 4 + 8 * (i / 2);
}
ROUTESTATS_HOST_DEVICE constexpr std::uint32_t sum_column(std::uint32_t lane, std::uint32_t i) {
  return lane % 4 * 2 + i % 2;
}

}  // namespace routestats
