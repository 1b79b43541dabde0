// Compares the adder tree of each instruction set with adding bit by bit.
#include <cstdio>
#include <random>
#include <vector>

#include "bits/row_sums.hpp"

namespace routestats {
namespace {

constexpr std::size_t kRows = 200;

using Counts = std::vector<std::uint32_t>;

// Rows and planes of `row_words` words, as whole cache lines.
struct Rows {
  Rows(std::size_t rows, std::size_t row_words)
      : words_per_row(row_words), lines((rows * row_words + kRowWords - 1) / kRowWords) {}
  std::uint64_t* words(std::size_t row) { return lines[0].words + row * words_per_row; }

  std::size_t words_per_row;
  std::vector<BitRow> lines;
};

Rows random_rows(std::size_t rows, std::size_t row_words, int thinning, std::mt19937_64& random) {
  Rows made(rows, row_words);
  for (std::size_t w = 0; w < rows * row_words; ++w) {
    std::uint64_t word = ~std::uint64_t{0};
    for (int i = 0; i < thinning; ++i) word &= random();
    made.words(0)[w] = word;
  }
  return made;
}

std::uint32_t bit(Rows& rows, std::size_t row, std::size_t column) {
  return static_cast<std::uint32_t>(rows.words(row)[column / 64] >> (column % 64) & 1);
}

// Lists of many lengths, one after another, into the same counters.
bool agrees(Isa isa, std::size_t row_words, int thinning) {
  std::mt19937_64 random(5);
  Rows rows = random_rows(kRows, row_words, thinning, random);
  const RowSums sums = row_sums(isa, row_words);
  for (const std::size_t plane_count : {std::size_t{13}, std::size_t{20}, kMostPlanes}) {
    Rows planes(plane_count, row_words);
    Counts expected(row_words * 64);
    std::size_t total = 0;
    for (std::size_t length = 0; total + length < 8192; length += kListStep) {
      std::vector<std::uint16_t> entries;
      for (std::size_t i = 0; i < length; ++i) {
        const std::size_t row = random() % kRows;
        entries.push_back(static_cast<std::uint16_t>(row * row_words));
        for (std::size_t c = 0; c < expected.size(); ++c) expected[c] += bit(rows, row, c);
      }
      sums.add(rows.words(0), entries.data(), length, planes.words(0), plane_count);
      total += length;
    }
    Counts got(expected.size(), 7);
    sums.expand(planes.words(0), plane_count, got.data());
    if (got != expected) return false;
  }
  return true;
}

// Counters that use every plane.
bool expands_wide(Isa isa, std::size_t row_words) {
  std::mt19937_64 random(6);
  Rows planes = random_rows(kMostPlanes, row_words, 1, random);
  Counts expected(row_words * 64);
  for (std::size_t c = 0; c < expected.size(); ++c) {
    for (std::size_t j = 0; j < kMostPlanes; ++j) expected[c] |= bit(planes, j, c) << j;
  }
  Counts got(expected.size());
  row_sums(isa, row_words).expand(planes.words(0), kMostPlanes, got.data());
  return got == expected;
}

}  // namespace
}  // namespace routestats

int main() {
  using namespace routestats;
  for (const Isa isa : available_isas()) {
    for (const std::size_t row_words : {kRowWords, kHalfRowWords}) {
      for (const int thinning : {0, 1, 4}) {
        if (agrees(isa, row_words, thinning) && expands_wide(isa, row_words)) continue;
        std::fprintf(stderr, "FAILED: %s words=%zu thinning=%d\n", name_of(isa), row_words,
                     thinning);
        return 1;
      }
    }
  }
  std::puts("ok");
  return 0;
}
