#include "prediction/rank_tokens.hpp"

namespace routestats {
namespace {

struct ScalarOps {
  using Vector = double;
  static constexpr std::size_t lanes = 1;
  static Vector load(const double* from) { return *from; }
  static void store(double* to, Vector v) { *to = v; }
  static Vector add(Vector a, Vector b) { return a + b; }
  static Vector broadcast(double value) { return value; }
  static std::uint32_t count_greater(Vector a, Vector b) { return a > b ? 1 : 0; }
};

}  // namespace

void rank_tokens_portable(const RankRun& run, std::uint32_t* ranks) {
  TokenRanker<ScalarOps>::run(run, ranks);
}

RankTokens rank_tokens(Isa isa, std::size_t experts) {
#if ROUTESTATS_X86_VARIANTS
  // Zen 4, one thread, ns per token and layer pair, AVX2 against AVX-512: 13.0 and 19.7 at E=8 K=2
  // (there a key is read right after a store twice as wide), 212 and 183 at E=128 K=8.
  constexpr std::size_t kWideFrom = 32;
  if (isa == Isa::avx512 && experts >= kWideFrom) return rank_tokens_avx512;
  if (isa != Isa::portable) return rank_tokens_avx2;
#endif
  static_cast<void>(isa);
  static_cast<void>(experts);
  return rank_tokens_portable;
}

}  // namespace routestats
