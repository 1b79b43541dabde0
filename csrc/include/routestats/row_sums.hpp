#pragma once

#include <cstddef>
#include <cstdint>

#include "routestats/cpu.hpp"

namespace routestats {

// A row of 512 one-bit columns: one cache line.
inline constexpr std::size_t kRowWords = 8;
inline constexpr std::size_t kRowColumns = kRowWords * 64;
struct alignas(64) BitRow {
  std::uint64_t words[kRowWords];
};

// Lists of rows have a multiple of this length, so that no kernel needs a remainder loop.
inline constexpr std::size_t kListStep = 8;

// 512 counters, bit-sliced: bit j of counter c is bit c of planes[j]. There are at least
// kFewestPlanes planes, and enough of them for the largest count.
inline constexpr std::size_t kFewestPlanes = 4;
inline constexpr std::size_t kMostPlanes = 24;

struct RowSums {
  // Adds the rows that begin at words[entries[i]], i < entries_count, to the counters.
  void (*add)(const std::uint64_t* words, const std::uint16_t* entries, std::size_t entry_count,
              BitRow* planes, std::size_t plane_count);
  // counts[c] = counter c.
  void (*expand)(const BitRow* planes, std::size_t plane_count, std::uint32_t* counts);
};

RowSums row_sums(Isa isa);

// One per instruction set; call them through row_sums().
extern const RowSums row_sums_portable;
extern const RowSums row_sums_avx2;
extern const RowSums row_sums_avx512;

}  // namespace routestats
