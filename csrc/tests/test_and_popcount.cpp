// Compares the kernel of each instruction set with counting bit by bit. Counts of whole traces
// would not show a fault of a kernel: a block whose loads do not add up is counted by the direct
// method.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "bits/and_popcount.hpp"

namespace routestats {
namespace {

using Words = std::vector<std::uint64_t>;

std::vector<std::uint64_t> naive(const Words& source, const Words& target, std::size_t experts,
                                 std::size_t words, std::vector<std::uint64_t> tile) {
  for (std::size_t e = 0; e < experts; ++e) {
    for (std::size_t f = 0; f < experts; ++f) {
      for (std::size_t i = 0; i < words; ++i) {
        std::uint64_t both = source[e * words + i] & target[f * words + i];
        for (; both != 0; both &= both - 1) ++tile[e * experts + f];
      }
    }
  }
  return tile;
}

// `thinning` 0 gives all ones, 1 gives half of the bits, 3 an eighth.
Words bits(std::size_t count, int thinning, std::mt19937_64& random) {
  Words result(count, ~std::uint64_t{0});
  for (auto& word : result) {
    for (int i = 0; i < thinning; ++i) word &= random();
  }
  return result;
}

bool agrees(Isa isa, std::size_t experts, std::size_t words, int thinning) {
  std::mt19937_64 random(experts * 1000 + words);
  const Words source = bits(experts * words, thinning, random);
  const Words target = bits(experts * words, thinning, random);
  const std::vector<std::uint64_t> before(experts * experts, std::uint64_t{1} << 40);
  auto tile = before;
  and_popcount(isa)(source.data(), target.data(), experts, words, tile.data());
  return tile == naive(source, target, experts, words, before);
}

}  // namespace
}  // namespace routestats

int main() {
  using namespace routestats;
  for (const Isa isa : available_isas()) {
    for (const std::size_t experts : {1u, 2u, 5u, 8u}) {
      for (const std::size_t words : {kColumnWords, 2 * kColumnWords, 5 * kColumnWords}) {
        for (const int thinning : {0, 1, 3}) {
          if (agrees(isa, experts, words, thinning)) continue;
          std::fprintf(stderr, "FAILED: %s E=%zu words=%zu thinning=%d\n", name_of(isa), experts,
                       words, thinning);
          return 1;
        }
      }
    }
  }
  std::puts("ok");
  return 0;
}
