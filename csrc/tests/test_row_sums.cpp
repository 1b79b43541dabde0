// Holds the adder tree of each instruction set to adding bit by bit.
#include <cstdio>
#include <random>
#include <vector>

#include "routestats/row_sums.hpp"

namespace routestats {
namespace {

constexpr std::size_t kRows = 200;

using Counts = std::vector<std::uint32_t>;

std::vector<BitRow> random_rows(int thinning, std::mt19937_64& random) {
  std::vector<BitRow> rows(kRows);
  for (BitRow& row : rows) {
    for (std::uint64_t& word : row.words) {
      word = ~std::uint64_t{0};
      for (int i = 0; i < thinning; ++i) word &= random();
    }
  }
  return rows;
}

// Lists of many lengths, one after another onto the same counters.
bool agrees(Isa isa, int thinning) {
  std::mt19937_64 random(5);
  const auto rows = random_rows(thinning, random);
  const RowSums sums = row_sums(isa);
  for (const std::size_t plane_count : {std::size_t{13}, std::size_t{20}, kMostPlanes}) {
    std::vector<BitRow> planes(plane_count, BitRow{});
    Counts expected(kRowColumns);
    std::size_t total = 0;
    for (std::size_t length = 0; total + length < 8192; length += kListStep) {
      std::vector<std::uint16_t> entries;
      for (std::size_t i = 0; i < length; ++i) {
        const std::size_t row = random() % kRows;
        entries.push_back(static_cast<std::uint16_t>(row * kRowWords));
        for (std::size_t c = 0; c < kRowColumns; ++c) {
          expected[c] += static_cast<std::uint32_t>(rows[row].words[c / 64] >> (c % 64) & 1);
        }
      }
      sums.add(rows[0].words, entries.data(), length, planes.data(), plane_count);
      total += length;
    }
    Counts got(kRowColumns, 7);
    sums.expand(planes.data(), plane_count, got.data());
    if (got != expected) return false;
  }
  return true;
}

// Counters that use every plane.
bool expands_wide(Isa isa) {
  std::mt19937_64 random(6);
  std::vector<BitRow> planes(kMostPlanes);
  Counts expected(kRowColumns);
  for (std::size_t j = 0; j < kMostPlanes; ++j) {
    for (std::size_t c = 0; c < kRowColumns; ++c) {
      const std::uint64_t bit = random() & 1;
      planes[j].words[c / 64] =
          (planes[j].words[c / 64] & ~(std::uint64_t{1} << (c % 64))) | bit << (c % 64);
      expected[c] |= static_cast<std::uint32_t>(bit) << j;
    }
  }
  Counts got(kRowColumns);
  row_sums(isa).expand(planes.data(), kMostPlanes, got.data());
  return got == expected;
}

}  // namespace
}  // namespace routestats

int main() {
  using namespace routestats;
  for (const Isa isa : available_isas()) {
    for (const int thinning : {0, 1, 4}) {
      if (agrees(isa, thinning) && expands_wide(isa)) continue;
      std::fprintf(stderr, "FAILED: %s thinning=%d\n", name_of(isa), thinning);
      return 1;
    }
  }
  std::puts("ok");
  return 0;
}
