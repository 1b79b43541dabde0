#include "bits/and_popcount.hpp"

#include <bit>

#include "bits/harley_seal.hpp"

namespace routestats {
namespace {

struct WordOps {
  using Vector = std::uint64_t;
  static constexpr std::size_t words = 1;
  static Vector load(const std::uint64_t* from) { return *from; }
  static Vector popcount(Vector v) { return static_cast<Vector>(std::popcount(v)); }
  static std::uint64_t sum(Vector v) { return v; }
};

}  // namespace

void and_popcount_portable(const std::uint64_t* source, const std::uint64_t* target,
                           std::size_t experts, std::size_t words, std::uint64_t* tile) {
  HarleySeal<WordOps>::add_tile(source, target, experts, words, tile);
}

AndPopcount and_popcount(Isa isa) {
#if ROUTESTATS_X86_VARIANTS
  if (isa == Isa::avx512) return and_popcount_avx512;
  if (isa == Isa::avx2) return and_popcount_avx2;
#endif
  static_cast<void>(isa);
  return and_popcount_portable;
}

}  // namespace routestats
