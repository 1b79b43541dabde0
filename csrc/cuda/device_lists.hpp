#pragma once

#include <cstdint>

#include "base/host_device.hpp"
#include "cuda/device_counts.hpp"

// Pairs by lists and rows of bits, one thread at a time: compiled for the device by nvcc, and for
// the host in the tests. The tokens that chose an expert form a list; the bits of its tokens (a row
// has one per target layer and expert) are summed column by column in bit-sliced counters. It is
// what pairs/list_counter.cpp does, in the shape of a multiprocessor: a block of rows lies in
// shared memory, eight threads share a list, and each sums 32 columns in registers.
// No token may name an expert twice at one layer.
namespace routestats {

inline constexpr std::uint32_t kListBlockTokens = 2048;  // whose rows lie in shared memory at once
inline constexpr std::uint32_t kListRowWords = 8;
inline constexpr std::uint32_t kListRowColumns = kListRowWords * 32;
// Lists have a multiple of this length: a thread reads so many entries at once.
inline constexpr std::uint32_t kDeviceListStep = 8;
// The row of zeros that lists are filled up with.
inline constexpr std::uint32_t kZeroRow = kListBlockTokens;

inline constexpr std::uint32_t kListPlanes = 16;
inline constexpr std::uint32_t kListHeld = kListPlanes - 3;
// Blocks whose rows may be summed before the counters are read out.
inline constexpr std::uint32_t kListShareBlocks = 31;
static_assert(kListShareBlocks * kListBlockTokens < 1u << kListPlanes);
static_assert(kListShareBlocks * kListBlockTokens / kDeviceListStep < 1u << kListHeld);

// Where rows and lists lie. Columns are numbered layer * experts + expert; a group is
// kListRowColumns of them.
struct ListLayout {
  std::uint32_t layers;
  std::uint32_t experts;
  std::uint32_t slots;

  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t groups() const {
    return (std::uint64_t{layers} * experts + kListRowColumns - 1) / kListRowColumns;
  }
  // Word `word` of the row of a token among `tokens`: rows of a group lie side by side.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t row_word(std::uint64_t group, std::uint64_t tokens,
                                                          std::uint64_t token,
                                                          std::uint32_t word) const {
    return (group * tokens + token) * kListRowWords + word;
  }
  // Entries of all lists of a block and layer, at most; a multiple of kDeviceListStep.
  ROUTESTATS_HOST_DEVICE constexpr std::uint32_t capacity() const {
    const std::uint32_t most = kListBlockTokens * slots + experts * (kDeviceListStep - 1);
    return (most + kDeviceListStep - 1) / kDeviceListStep * kDeviceListStep;
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t entries(std::uint64_t block,
                                                         std::uint32_t layer) const {
    return (block * layers + layer) * capacity();
  }
  // Where each expert's list begins among the entries, and where the last one ends.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t begins(std::uint64_t block,
                                                        std::uint32_t layer) const {
    return (block * layers + layer) * (std::uint64_t{experts} + 1);
  }
  // Of a block's rows, and of its lists and where each begins.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t row_bytes() const {
    return row_word(groups(), kListBlockTokens, 0, 0) * sizeof(std::uint32_t);
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t list_bytes() const {
    return entries(1, 0) * sizeof(std::uint16_t) + begins(1, 0) * sizeof(std::uint32_t);
  }
  // Tokens to count at a time: as many whole blocks, at least one, as neither take more than so
  // many bytes of rows nor of lists. Few experts have narrow rows and yet lists of all their
  // tokens.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t chunk_tokens(std::uint64_t most_row_bytes,
                                                              std::uint64_t most_list_bytes) const {
    const std::uint64_t by_rows = most_row_bytes / row_bytes();
    const std::uint64_t by_lists = most_list_bytes / list_bytes();
    const std::uint64_t blocks = by_rows < by_lists ? by_rows : by_lists;
    return (blocks == 0 ? 1 : blocks) * kListBlockTokens;
  }
  // Of shared memory, where the lists of a block and layer are made: entries, and of each expert
  // its list's length, its next entry's place and its begin.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t making_bytes() const {
    return std::uint64_t{capacity()} * sizeof(std::uint16_t) +
           (std::uint64_t{experts} * 3 + 1) * sizeof(std::uint32_t);
  }
  // And where rows are summed.
  static constexpr std::uint64_t summing_bytes() {
    return (std::uint64_t{kListBlockTokens} + 1) * kListRowWords * sizeof(std::uint32_t);
  }
};

// One thread, once the lengths are known: where the lists of a block and layer begin, each a
// multiple of kDeviceListStep long. `next` is where each list's next entry goes.
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

// One thread per token of the block. `Atomics::next(counter)` adds one and returns what was there.
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
// One thread per list, when all entries are in: from the last one on, the row of zeros.
ROUTESTATS_HOST_DEVICE inline void fill_up_list(const std::uint32_t* begins,
                                                const std::uint32_t* next, std::uint32_t expert,
                                                std::uint16_t* entries) {
  for (std::uint32_t i = next[expert]; i < begins[expert + 1]; ++i) {
    entries[i] = static_cast<std::uint16_t>(kZeroRow);
  }
}

// 32 counters of up to kListPlanes bits, bit-sliced, in a thread's registers: bit j of counter c is
// bit c of planes[j]. Carries of weight 8 wait in pairs, as the digits of a binary number of them,
// so that each costs about one more adder: `held[j]` has weight 8 << j.
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

  // All threads of a warp do this equally often, so that none waits for another's branches.
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

  // What waits goes into the planes; nothing is added afterwards.
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
