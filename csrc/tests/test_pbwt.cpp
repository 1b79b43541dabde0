// Compares the transform with sorting whole histories and comparing neighbours symbol by symbol.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "contexts/pbwt.hpp"

namespace routestats {
namespace {

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

template <class Symbol>
using Columns = std::vector<std::vector<Symbol>>;

// Whether token a comes before b: by the latest layer, then by the layer before it, ..., then by
// number.
template <class Symbol>
bool before(const Columns<Symbol>& columns, std::size_t steps, std::uint32_t a, std::uint32_t b) {
  for (std::size_t l = steps; l-- > 0;) {
    if (columns[l][a] != columns[l][b]) return columns[l][a] < columns[l][b];
  }
  return a < b;
}

template <class Symbol>
std::size_t common(const Columns<Symbol>& columns, std::size_t steps, std::uint32_t a,
                   std::uint32_t b) {
  std::size_t length = 0;
  while (length < steps && columns[steps - 1 - length][a] == columns[steps - 1 - length][b]) {
    ++length;
  }
  return length;
}

template <class Length, class Symbol>
void compare(std::size_t tokens, std::size_t layers, std::size_t alphabet, std::size_t kinds,
             std::mt19937& random) {
  // Whole histories are copied from a few, so that common runs of every length occur.
  Columns<Symbol> columns(layers, std::vector<Symbol>(tokens));
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::size_t copied = t < kinds ? layers : random() % (layers + 1);
    const std::size_t source = t < kinds ? t : random() % kinds;
    for (std::size_t l = 0; l < layers; ++l) {
      const bool own = t < kinds || l >= copied;
      columns[l][t] = own ? static_cast<Symbol>(random() % alphabet) : columns[l][source];
    }
  }
  Pbwt<Length> pbwt(tokens);
  std::vector<std::uint32_t> expected(tokens);
  for (std::size_t steps = 1; steps <= layers; ++steps) {
    pbwt.step(std::span<const Symbol>(columns[steps - 1]), alphabet);
    std::iota(expected.begin(), expected.end(), 0u);
    std::sort(expected.begin(), expected.end(),
              [&](std::uint32_t a, std::uint32_t b) { return before(columns, steps, a, b); });
    const std::string where = "T=" + std::to_string(tokens) + " E=" + std::to_string(alphabet) +
                              " bytes=" + std::to_string(sizeof(Symbol)) +
                              " step=" + std::to_string(steps);
    require(std::equal(expected.begin(), expected.end(), pbwt.order().begin()), "order, " + where);
    for (std::size_t i = 0; i < tokens; ++i) {
      const std::size_t length = i == 0 ? 0 : common(columns, steps, expected[i - 1], expected[i]);
      require(pbwt.lengths()[i] == length, "length, " + where);
    }
  }
}

void test_random_columns() {
  std::mt19937 random(3);
  for (const std::size_t tokens : {0u, 1u, 2u, 65u, 700u}) {
    for (const std::size_t kinds : {std::size_t{1}, std::size_t{20}}) {
      for (const std::size_t alphabet : {1u, 2u, 8u, 16u, 17u, 60u, 128u, 256u}) {
        compare<std::uint8_t, std::uint8_t>(tokens, 9, alphabet, kinds, random);
        compare<std::uint16_t, std::uint8_t>(tokens, 5, alphabet, kinds, random);
        compare<std::uint8_t, std::uint16_t>(tokens, 5, alphabet, kinds, random);
        compare<std::uint8_t, std::uint32_t>(tokens, 9, alphabet, kinds, random);
      }
      for (const std::size_t alphabet : {257u, 3000u, 65'536u}) {
        compare<std::uint8_t, std::uint32_t>(tokens, 20, alphabet, kinds, random);
        compare<std::uint8_t, std::uint16_t>(tokens, 6, alphabet, kinds, random);
        compare<std::uint16_t, std::uint32_t>(tokens, 6, alphabet, kinds, random);
      }
      compare<std::uint8_t, std::uint32_t>(tokens, 3, 1'000'000, kinds, random);
    }
  }
}

// As many layers as the narrow type can count, all equal. One more is refused.
void test_many_layers() {
  const std::vector<std::uint8_t> alike(3, 1);
  Pbwt<std::uint8_t> narrow(3);
  for (int i = 0; i < 255; ++i) narrow.step(alike, 2);
  require(narrow.lengths()[2] == 255, "255 common layers");
  try {
    narrow.step(alike, 2);
    require(false, "the 256th step is refused");
  } catch (const std::length_error&) {
  }
  Pbwt<std::uint16_t> wide(3);
  for (int i = 0; i < 300; ++i) wide.step(alike, 2);
  require(wide.lengths()[2] == 300 && wide.lengths()[0] == 0, "300 common layers");
}

}  // namespace
}  // namespace routestats

int main() {
  routestats::test_random_columns();
  routestats::test_many_layers();
  std::puts("ok");
  return 0;
}
