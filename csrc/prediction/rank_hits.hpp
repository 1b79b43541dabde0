#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/cpu.hpp"

namespace routestats {

// Scored predictions of the experts that tokens choose at `targets` layers. The score of expert f
// is base[f] plus table[row][f] for each of the `picks` rows of the token. Scores are integers of
// at least 0 that doubles hold exactly in any order of addition. The caller has made them distinct,
// so every expert has one rank: 0 is the best guess. The caller owns all memory; it is row-major.
struct ScoredTokens {
  std::size_t targets;
  std::size_t experts;
  std::size_t table_rows;
  const double* tables;  // [targets, table_rows, experts]
  const double* base;    // [targets, experts]

  std::size_t tokens;
  std::size_t picks;
  const std::uint32_t* rows;  // [targets, tokens, picks], or [tokens, picks] if rows_are_shared
  bool rows_are_shared;
  std::size_t slots;
  const std::uint16_t* chosen;  // [targets, tokens, slots]: the experts chosen, first choice first
  std::size_t groups;
  const std::uint32_t* group_of;  // [tokens]; fastest if equal ones stand together
};

// Adds to hits [targets, groups, 2 + best.size()], in the group of each token: whether its first
// choice has rank 0; for each M of `best` the number of its choices with a rank below M; and
// whether all choices have a rank below `slots`. Throws std::out_of_range if a row, a chosen expert
// or a group is out of range.
void add_rank_hits(const ScoredTokens& scored, const std::vector<std::uint32_t>& best,
                   std::int64_t* hits, unsigned threads, Isa isa);

}  // namespace routestats
