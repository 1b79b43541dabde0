#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/cpu.hpp"

namespace routestats {

// Scored predictions of which experts tokens choose at `targets` layers. The score of expert f is
// base[f] plus table[row][f] of each of the token's `picks` rows. Scores are integers that doubles
// hold exactly in any order of addition, at least 0, and the caller has made them distinct, so that
// every expert has one rank: 0 is the best guess. All memory is the caller's, in row-major order.
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
  const std::uint16_t* chosen;  // [targets, tokens, slots]: what was chosen, first choice first
  std::size_t groups;
  const std::uint32_t* group_of;  // [tokens]; equal ones are best kept together
};

// Adds to hits [targets, groups, 2 + best.size()] of each token's group: whether its first choice
// has rank 0; for each M of `best` how many of its choices have a rank below M; and whether all of
// them have a rank below `slots`. Throws std::out_of_range when a row, chosen expert or group is.
void add_rank_hits(const ScoredTokens& scored, const std::vector<std::uint32_t>& best,
                   std::int64_t* hits, unsigned threads, Isa isa);

}  // namespace routestats
