#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"

namespace routestats {

// Writes the first byte of each layer's K bytes as words: the byte of the first layer in the most
// significant place, zeros after the last layer. `row` holds K bytes for each of `layers` layers.
using FirstChoices = void (*)(const std::uint8_t* row, std::size_t layers, std::uint64_t* words);

// The fastest function of an instruction set for layers of `slots` bytes; null if there is none.
FirstChoices first_choices(Isa isa, std::size_t slots);

#if ROUTESTATS_X86_VARIANTS
FirstChoices first_choices_avx2(std::size_t slots);
#endif

}  // namespace routestats
