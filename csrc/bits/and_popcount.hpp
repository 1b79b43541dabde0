#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"

namespace routestats {

// Columns have a multiple of this many words, so that no kernel needs a remainder loop.
inline constexpr std::size_t kColumnWords = 64;

// tile[e, f] += how many bits are set in both source column e and target column f, for a square
// tile of `experts` x `experts`. Source and target are `experts` columns of `words` words each.
using AndPopcount = void (*)(const std::uint64_t* source, const std::uint64_t* target,
                             std::size_t experts, std::size_t words, std::uint64_t* tile);

AndPopcount and_popcount(Isa isa);

// One per instruction set; call them through and_popcount().
void and_popcount_portable(const std::uint64_t* source, const std::uint64_t* target,
                           std::size_t experts, std::size_t words, std::uint64_t* tile);
void and_popcount_avx2(const std::uint64_t* source, const std::uint64_t* target,
                       std::size_t experts, std::size_t words, std::uint64_t* tile);
void and_popcount_avx512(const std::uint64_t* source, const std::uint64_t* target,
                         std::size_t experts, std::size_t words, std::uint64_t* tile);

}  // namespace routestats
