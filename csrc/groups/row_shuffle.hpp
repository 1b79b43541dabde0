#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace routestats {

// Entries of a trace's rows in classes: class c is entries starts[c] .. starts[c + 1] - 1.
struct ClassedRows {
  std::span<const std::uint32_t> rows;
  std::span<const std::uint64_t> starts;  // ascending, from 0 to rows.size()

  std::size_t classes() const { return starts.size() - 1; }
};

// Throws std::invalid_argument, which begins with "starts", unless they ascend from 0 to `entries`.
void check_starts(std::span<const std::uint64_t> starts, std::size_t entries);

// Which random numbers are drawn. A class has its own in each stream and layer: neither the number
// of threads nor the other classes of the call change them.
struct ShuffleSeed {
  std::uint64_t seed;
  std::uint64_t stream;
  std::uint64_t first_class = 0;  // the number by which the caller knows class 0
};

// Writes `rows`, permuted evenly at random within each class and anew for each layer, to
// `orders` [layers, rows.size()].
//
// Fisher and Yates from the last entry down, with bounded integers after Lemire (2019, 32 bits)
// from SplitMix64 (Steele, Lea and Flood 2014): the same on every platform. The Python of it is
// counts/reference_groups.py. Throws std::length_error for more than 2^32 - 1 rows.
void shuffle_rows(const ClassedRows& classed, const ShuffleSeed& seed, std::size_t layers,
                  std::uint32_t* orders, unsigned threads);

}  // namespace routestats
