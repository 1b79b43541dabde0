#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"

namespace routestats {

// A row of 512 one-bit columns: one cache line.
inline constexpr std::size_t kRowWords = 8;
inline constexpr std::size_t kRowColumns = kRowWords * 64;
struct alignas(64) BitRow {
  std::uint64_t words[kRowWords];
};
// Half a row, for sums of few columns.
inline constexpr std::size_t kHalfRowWords = kRowWords / 2;

// The length of a list of rows is a multiple of this, so no kernel needs a loop for the rest.
inline constexpr std::size_t kListStep = 8;

// One counter for each column of a row, bit-sliced: bit j of counter c is bit c of plane j. A plane
// has as many words as a row. There are at least kFewestPlanes planes, and enough of them for the
// largest count.
inline constexpr std::size_t kFewestPlanes = 4;
inline constexpr std::size_t kMostPlanes = 24;

// Planes that the sum of `rows` rows needs.
std::size_t plane_count(std::size_t rows);

// Rows and planes are aligned to their own size.
struct RowSums {
  // Adds the rows that begin at words[entries[i]], i < entries_count, to the counters.
  void (*add)(const std::uint64_t* words, const std::uint16_t* entries, std::size_t entry_count,
              std::uint64_t* planes, std::size_t plane_count);
  // counts[c] = counter c.
  void (*expand)(const std::uint64_t* planes, std::size_t plane_count, std::uint32_t* counts);
};

// Functions for rows of kRowWords or kHalfRowWords words.
RowSums row_sums(Isa isa, std::size_t row_words = kRowWords);

// One set per instruction set; call them through row_sums().
struct RowSumsOfIsa {
  RowSums whole;
  RowSums half;
};
extern const RowSumsOfIsa row_sums_portable;
extern const RowSumsOfIsa row_sums_avx2;
extern const RowSumsOfIsa row_sums_avx512;

}  // namespace routestats
