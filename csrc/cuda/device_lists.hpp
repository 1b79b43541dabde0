#pragma once

#include <cstdint>

#include "base/host_device.hpp"
#include "cuda/device_ids.hpp"

// Pairs by lists and rows of bits, one thread at a time. nvcc compiles it for the device, the tests
// compile it for the host. The tokens that chose an expert form a list. A token has a row of bits,
// one bit per target layer and expert. The rows of a list are summed column by column in bit-sliced
// counters. pairs/list_counter.cpp does the same on the CPU. Here a block of rows lies in shared
// memory, eight threads share a list, and each thread sums 32 columns in registers.
// No token may name an expert twice at one layer.
namespace routestats {

inline constexpr std::uint32_t kListBlockTokens = 2048;  // their rows lie in shared memory
inline constexpr std::uint32_t kListRowWords = 8;
inline constexpr std::uint32_t kListRowColumns = kListRowWords * 32;
// The length of a list is a multiple of this: a thread reads this many entries at once.
inline constexpr std::uint32_t kDeviceListStep = 8;
// The row of zeros, which pads a list.
inline constexpr std::uint32_t kZeroRow = kListBlockTokens;

inline constexpr std::uint32_t kListPlanes = 16;
inline constexpr std::uint32_t kListHeld = kListPlanes - 3;
// The most blocks whose rows the counters can hold.
inline constexpr std::uint32_t kListShareBlocks = 31;
static_assert(kListShareBlocks * kListBlockTokens < 1u << kListPlanes);
static_assert(kListShareBlocks * kListBlockTokens / kDeviceListStep < 1u << kListHeld);

// Where rows and lists lie. Column layer * experts + expert stands for an expert of a layer; a
// group is kListRowColumns columns.
struct ListLayout {
  std::uint32_t layers;
  std::uint32_t experts;
  std::uint32_t slots;

  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t groups() const {
    return (std::uint64_t{layers} * experts + kListRowColumns - 1) / kListRowColumns;
  }
  // The place of word `word` in the row of a token, one of `tokens`. The rows of a group lie side
  // by side.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t row_word(std::uint64_t group, std::uint64_t tokens,
                                                          std::uint64_t token,
                                                          std::uint32_t word) const {
    return (group * tokens + token) * kListRowWords + word;
  }
  // The most entries of all lists of a block and layer; a multiple of kDeviceListStep.
  ROUTESTATS_HOST_DEVICE constexpr std::uint32_t capacity() const {
    const std::uint32_t most = kListBlockTokens * slots + experts * (kDeviceListStep - 1);
    return (most + kDeviceListStep - 1) / kDeviceListStep * kDeviceListStep;
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t entries(std::uint64_t block,
                                                         std::uint32_t layer) const {
    return (block * layers + layer) * capacity();
  }
  // Where each expert's list begins among the entries, and where the last list ends.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t begins(std::uint64_t block,
                                                        std::uint32_t layer) const {
    return (block * layers + layer) * (std::uint64_t{experts} + 1);
  }
  // Bytes of the rows of a block, and of its lists with their begins.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t row_bytes() const {
    return row_word(groups(), kListBlockTokens, 0, 0) * sizeof(std::uint32_t);
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t list_bytes() const {
    return entries(1, 0) * sizeof(std::uint16_t) + begins(1, 0) * sizeof(std::uint32_t);
  }
  // How many tokens to count at a time: whole blocks, at least one, that fit into both limits. With
  // few experts the rows are narrow, but the lists are as long as ever.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t chunk_tokens(std::uint64_t most_row_bytes,
                                                              std::uint64_t most_list_bytes) const {
    const std::uint64_t by_rows = most_row_bytes / row_bytes();
    const std::uint64_t by_lists = most_list_bytes / list_bytes();
    const std::uint64_t blocks = by_rows < by_lists ? by_rows : by_lists;
    return (blocks == 0 ? 1 : blocks) * kListBlockTokens;
  }
  // Bytes of shared memory that make_lists needs for a block and layer: the entries, and for each
  // expert the length of its list, the place of its next entry and its begin.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t making_bytes() const {
    return std::uint64_t{capacity()} * sizeof(std::uint16_t) +
           (std::uint64_t{experts} * 3 + 1) * sizeof(std::uint32_t);
  }
  // The same for sum_lists.
  static constexpr std::uint64_t summing_bytes() {
    return (std::uint64_t{kListBlockTokens} + 1) * kListRowWords * sizeof(std::uint32_t);
  }
};

// The bits of one token in the 32 columns from `first_column` on.
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

// Where the table of the pairs has the cell of a source column and a target column. `places` is
// [layers, layers]: the pair's place in the plan, or kNotCounted.
inline constexpr std::uint32_t kNotCounted = ~std::uint32_t{0};

struct ListPlan {
  const std::uint32_t* places;
  std::uint32_t layers;
  std::uint32_t experts;

  // Index in the table [pairs, experts, experts], or ~0 for a cell that is not counted.
  ROUTESTATS_HOST_DEVICE std::uint64_t cell(std::uint32_t from, std::uint32_t to) const {
    const std::uint32_t source = from / experts;
    const std::uint32_t target = to / experts;
    if (source >= layers || target >= layers) return ~std::uint64_t{0};
    const std::uint32_t place = places[source * layers + target];
    if (place == kNotCounted) return ~std::uint64_t{0};
    return (std::uint64_t{place} * experts + (from - source * experts)) * experts +
           (to - target * experts);
  }
};

// One thread, once the lengths are known: where the lists of a block and layer begin. The length of
// each is rounded up to a multiple of kDeviceListStep. `next` is where the next entry of a list
// goes.
ROUTESTATS_HOST_DEVICE inline void lay_out_lists(const std::uint32_t* lengths,
                                                 std::uint32_t experts, std::uint32_t* begins,
                                                 std::uint32_t* next) {
  std::uint32_t end = 0;
  for (std::uint32_t e = 0; e < experts; ++e) {
    begins[e] = next[e] = end;
    end += (lengths[e] + kDeviceListStep - 1) / kDeviceListStep * kDeviceListStep;
  }
  begins[experts] = end;
}

// One thread per token of the block. `Atomics::next(counter)` adds one and returns the value
// before.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void count_lengths(const IdView& block, std::uint32_t layer,
                                                 std::uint64_t token, std::uint32_t* lengths) {
  for (std::uint32_t k = 0; k < block.slots; ++k) {
    Atomics::next(lengths + block.load(token, layer, k));
  }
}
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void add_to_lists(const IdView& block, std::uint32_t layer,
                                                std::uint64_t token, std::uint32_t* next,
                                                std::uint16_t* entries) {
  for (std::uint32_t k = 0; k < block.slots; ++k) {
    entries[Atomics::next(next + block.load(token, layer, k))] = static_cast<std::uint16_t>(token);
  }
}
// One thread per list, when all entries are in: the row of zeros after the last entry.
ROUTESTATS_HOST_DEVICE inline void fill_up_list(const std::uint32_t* begins,
                                                const std::uint32_t* next, std::uint32_t expert,
                                                std::uint16_t* entries) {
  for (std::uint32_t i = next[expert]; i < begins[expert + 1]; ++i) {
    entries[i] = static_cast<std::uint16_t>(kZeroRow);
  }
}

// 32 bit-sliced counters of kListPlanes bits in a thread's registers: bit j of counter c is bit c
// of planes[j]. A carry of weight 8 << j waits in held[j] until a second one comes, so that each
// carry costs about one more adder. Bit j of `carries` tells whether held[j] is in use.
struct BitSums {
  std::uint32_t planes[kListPlanes];
  std::uint32_t held[kListHeld];
  std::uint32_t carries;

  ROUTESTATS_HOST_DEVICE void clear() {
    ROUTESTATS_UNROLL
    for (std::uint32_t& plane : planes) plane = 0;
    ROUTESTATS_UNROLL
    for (std::uint32_t& waiting : held) waiting = 0;
    carries = 0;
  }

  // low, a, b: three bits of weight 1 per counter -> one of weight 2 (returned) and one of 1 (low).
  ROUTESTATS_HOST_DEVICE static std::uint32_t carry_save(std::uint32_t& low, std::uint32_t a,
                                                         std::uint32_t b) {
    const std::uint32_t carry = (low & a) | (low & b) | (a & b);
    low ^= a ^ b;
    return carry;
  }

  // All threads of a warp call this equally often, so that they take the same branches.
  ROUTESTATS_HOST_DEVICE void add(const std::uint32_t (&row)[kDeviceListStep]) {
    const std::uint32_t twos_a = carry_save(planes[0], row[0], row[1]);
    const std::uint32_t twos_b = carry_save(planes[0], row[2], row[3]);
    const std::uint32_t fours_a = carry_save(planes[1], twos_a, twos_b);
    const std::uint32_t twos_c = carry_save(planes[0], row[4], row[5]);
    const std::uint32_t twos_d = carry_save(planes[0], row[6], row[7]);
    const std::uint32_t fours_b = carry_save(planes[1], twos_c, twos_d);
    std::uint32_t carry = carry_save(planes[2], fours_a, fours_b);
    ROUTESTATS_UNROLL
    for (std::uint32_t j = 0; j < kListHeld; ++j) {
      if ((carries >> j & 1u) == 0) {
        held[j] = carry;
        break;
      }
      carry = carry_save(planes[3 + j], held[j], carry);
    }
    ++carries;
  }

  // Adds the waiting carries to the planes. Nothing may be added after that.
  ROUTESTATS_HOST_DEVICE void finish() {
    std::uint32_t carry = 0;
    ROUTESTATS_UNROLL
    for (std::uint32_t j = 0; j < kListHeld; ++j) {
      carry = carry_save(planes[3 + j], (carries >> j & 1u) != 0 ? held[j] : 0u, carry);
    }
  }

  ROUTESTATS_HOST_DEVICE std::uint32_t count(std::uint32_t counter) const {
    std::uint32_t sum = 0;
    ROUTESTATS_UNROLL
    for (std::uint32_t j = 0; j < kListPlanes; ++j) sum |= (planes[j] >> counter & 1u) << j;
    return sum;
  }
};

}  // namespace routestats
