#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"

namespace routestats {

// Sorts each group of K bytes of a row in ascending order and writes them as words: the first byte
// of a word in the most significant place, zeros after the last byte. Returns whether the bytes of
// every group are distinct. `bytes` is a multiple of K.
using SetSort = bool (*)(const std::uint8_t* row, std::size_t bytes, std::uint64_t* words);

// The fastest function of an instruction set for groups of `slots` bytes; null if there is none.
SetSort set_sort(Isa isa, std::size_t slots);

// For pairs of ids below 8: one byte for each set, the mask that PathCodec defines, instead of the
// ids. Null if there is none.
SetSort set_masks(Isa isa, std::size_t experts, std::size_t slots);

#if ROUTESTATS_X86_VARIANTS
SetSort set_sort_avx2(std::size_t slots);
bool set_masks_avx2(const std::uint8_t* row, std::size_t bytes, std::uint64_t* words);
#endif

}  // namespace routestats
