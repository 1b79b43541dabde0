#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace routestats {

// Throws std::invalid_argument, which begins with "starts", unless they ascend from 0 to `entries`.
void check_starts(std::span<const std::uint64_t> starts, std::size_t entries);

// Which random numbers are drawn. A group has its own numbers in each stream and layer. The number
// of threads and the other groups of the call do not change them.
struct ShuffleSeed {
  std::uint64_t seed;
  std::uint64_t stream;
  std::uint64_t first_group = 0;  // the number of group 0 in a larger whole
};

// Writes to `orders` [layers, rows.size()] the rows, permuted evenly at random within each group,
// with a new permutation for each layer. Group g is rows[starts[g]] .. rows[starts[g + 1] - 1].
//
// Fisher and Yates from the last entry down, with bounded integers after Lemire (2019, 32 bits)
// from SplitMix64 (Steele, Lea and Flood 2014): the same on every platform. Its specification in
// Python is counts/reference/groups.py. Throws std::length_error for more than 2^32 - 1 rows.
void shuffle_rows(std::span<const std::uint32_t> rows, std::span<const std::uint64_t> starts,
                  const ShuffleSeed& seed, std::size_t layers, std::uint32_t* orders,
                  unsigned threads);

}  // namespace routestats
