#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"

namespace routestats {

// The widest vector of doubles. `keys` is filled up to a multiple of it.
inline constexpr std::size_t kMaxLanes = 8;

// One target layer and a run of tokens; see ScoredTokens. The caller provides scratch memory: code
// that is compiled for one instruction set must share no templates with other code, not even those
// of std::vector.
struct RankRun {
  std::size_t experts;
  const double* table;
  const double* base;
  std::size_t tokens;
  std::size_t picks;
  const std::uint32_t* rows;
  std::size_t slots;
  const std::uint16_t* chosen;
  double* keys;           // scratch, experts rounded up to kMaxLanes
  const double** picked;  // scratch, picks
};

// Writes the rank of each choice, [tokens, slots].
using RankTokens = void (*)(const RankRun& run, std::uint32_t* ranks);

// The fastest function that `isa` can run.
RankTokens rank_tokens(Isa isa, std::size_t experts);

void rank_tokens_portable(const RankRun& run, std::uint32_t* ranks);
void rank_tokens_avx2(const RankRun& run, std::uint32_t* ranks);
void rank_tokens_avx512(const RankRun& run, std::uint32_t* ranks);

// The same method for every instruction set: sum the rows into `keys`, which stay in the
// first-level cache, then count for each choice the experts with a larger key. A token costs picks
// * E additions and slots * E comparisons. The table of a pair of layers, E x E doubles, is read
// from the second-level cache, and this sets the limit: with AVX2 0.07 ns per addition (32 bytes
// per cycle) and 0.035 ns per comparison. At E=128 K=8 half of this speed is reached.
template <class Ops>
class TokenRanker {
 public:
  static void run(const RankRun& run, std::uint32_t* ranks) {
    switch (run.picks) {
      case 1:
        return rank<1>(run, ranks);
      case 2:
        return rank<2>(run, ranks);
      case 4:
        return rank<4>(run, ranks);
      case 6:
        return rank<6>(run, ranks);
      case 8:
        return rank<8>(run, ranks);
      default:
        return rank<0>(run, ranks);
    }
  }

 private:
  static constexpr std::size_t lanes = Ops::lanes;

  // FixedPicks = 0 reads the number at run time; the common numbers are compiled in.
  template <std::size_t FixedPicks>
  static void rank(const RankRun& run, std::uint32_t* ranks) {
    const std::size_t picks = FixedPicks != 0 ? FixedPicks : run.picks;
    const std::size_t whole = run.experts / lanes * lanes;
    const std::size_t filled = (run.experts + lanes - 1) / lanes * lanes;
    double* const keys = run.keys;
    const double** const picked = run.picked;
    // Padding is below every score, so it never ranks above an expert.
    for (std::size_t e = run.experts; e < filled; ++e) keys[e] = -1.0;
    for (std::size_t t = 0; t < run.tokens; ++t) {
      for (std::size_t i = 0; i < picks; ++i) {
        picked[i] = run.table + run.rows[t * picks + i] * run.experts;
      }
      for (std::size_t e = 0; e < whole; e += lanes) {
        auto sum = Ops::load(run.base + e);
        for (std::size_t i = 0; i < picks; ++i) sum = Ops::add(sum, Ops::load(picked[i] + e));
        Ops::store(keys + e, sum);
      }
      for (std::size_t e = whole; e < run.experts; ++e) {
        double sum = run.base[e];
        for (std::size_t i = 0; i < picks; ++i) sum += picked[i][e];
        keys[e] = sum;
      }
      for (std::size_t k = 0; k < run.slots; ++k) {
        const auto own = Ops::broadcast(keys[run.chosen[t * run.slots + k]]);
        std::uint32_t better = 0;
        for (std::size_t e = 0; e < filled; e += lanes) {
          better += Ops::count_greater(Ops::load(keys + e), own);
        }
        ranks[t * run.slots + k] = better;
      }
    }
  }
};

}  // namespace routestats
