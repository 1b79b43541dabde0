#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bits/layer_bits.hpp"

// This header is compiled for several instruction sets, so everything in it is local to its file.
namespace routestats {
namespace {

// FixedSlots = 0 reads the number of slots at run time; the common numbers are compiled in.
template <std::size_t Words, std::size_t FixedSlots>
bool fill_bits_of(const std::uint64_t* one_hot, const std::uint16_t* ids, std::size_t tokens,
                  std::size_t run_time_slots, std::uint64_t* bits) {
  using Bits [[gnu::vector_size(Words * sizeof(std::uint64_t))]] = std::uint64_t;
  const std::size_t slots = FixedSlots != 0 ? FixedSlots : run_time_slots;
  Bits twice{};
  for (std::size_t t = 0; t < tokens; ++t, ids += slots, bits += Words) {
    Bits all{};
    for (std::size_t k = 0; k < slots; ++k) {
      Bits own;
      std::memcpy(&own, one_hot + std::size_t{ids[k]} * Words, sizeof own);
      twice |= all & own;
      all |= own;
    }
    std::memcpy(bits, &all, sizeof all);
  }
  std::uint64_t found[Words];
  std::memcpy(found, &twice, sizeof found);
  for (std::size_t w = 1; w < Words; ++w) found[0] |= found[w];
  return found[0] == 0;
}

template <std::size_t Words>
bool fill_bits(const std::uint64_t* one_hot, const std::uint16_t* ids, std::size_t tokens,
               std::size_t slots, std::uint64_t* bits) {
  if (slots == 4) return fill_bits_of<Words, 4>(one_hot, ids, tokens, slots, bits);
  if (slots == 6) return fill_bits_of<Words, 6>(one_hot, ids, tokens, slots, bits);
  if (slots == 8) return fill_bits_of<Words, 8>(one_hot, ids, tokens, slots, bits);
  return fill_bits_of<Words, 0>(one_hot, ids, tokens, slots, bits);
}

}  // namespace
}  // namespace routestats
