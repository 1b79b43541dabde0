#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"

namespace routestats {

// Sorts each group of K bytes of a row ascending and writes them as words, the first byte of a word
// in its most significant place and zeros after the end. Returns whether all groups hold distinct
// bytes. `bytes` is a multiple of K.
using SetSort = bool (*)(const std::uint8_t* row, std::size_t bytes, std::uint64_t* words);

// The fastest of an instruction set for groups of `slots` bytes; null where there is none.
SetSort set_sort(Isa isa, std::size_t slots);

// For pairs of ids below 8 the mask of each set, as PathCodec defines it, instead of the ids: a
// byte each. Null where there is none.
SetSort set_masks(Isa isa, std::size_t experts, std::size_t slots);

#if defined(__x86_64__)
SetSort set_sort_avx2(std::size_t slots);
bool set_masks_avx2(const std::uint8_t* row, std::size_t bytes, std::uint64_t* words);
#endif

}  // namespace routestats
