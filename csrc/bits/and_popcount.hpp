#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"

namespace routestats {

// The words of a column are a multiple of this, so no kernel needs a loop for the rest.
inline constexpr std::size_t kColumnWords = 64;

// tile[e, f] += the number of bits that are set in both source column e and target column f. The
// tile has `experts` x `experts` cells. Source and target have `experts` columns of `words` words
// each.
using AndPopcount = void (*)(const std::uint64_t* source, const std::uint64_t* target,
                             std::size_t experts, std::size_t words, std::uint64_t* tile);

AndPopcount and_popcount(Isa isa);

// One kernel per instruction set; call them through and_popcount().
void and_popcount_portable(const std::uint64_t* source, const std::uint64_t* target,
                           std::size_t experts, std::size_t words, std::uint64_t* tile);
void and_popcount_avx2(const std::uint64_t* source, const std::uint64_t* target,
                       std::size_t experts, std::size_t words, std::uint64_t* tile);
void and_popcount_avx512(const std::uint64_t* source, const std::uint64_t* target,
                         std::size_t experts, std::size_t words, std::uint64_t* tile);

}  // namespace routestats
