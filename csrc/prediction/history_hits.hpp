#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/expert_view.hpp"
#include "contexts/context_tree.hpp"

namespace routestats {

inline constexpr std::size_t kMaxBest = 8;

// The question to a history predictor, and how its answer is measured.
struct HistoryQuestion {
  std::size_t experts;
  bool sets;                        // contexts are made of sets of experts, not of first choices
  bool top1;                        // measure whether the most frequent first choice is the token's
  std::vector<std::uint32_t> best;  // measure how many of a token's experts are among the most
                                    // frequent M, for each M (at most kMaxBest); and whether
                                    // all are, at best[0] = K
  HistorySettings settings;

  // In this order: top1, one for each of `best`, exact set.
  std::size_t measures() const { return (top1 ? 1 : 0) + (best.empty() ? 0 : best.size() + 1); }
};

// Hits summed over all test tokens for every setting, or over each group with one setting per pair.
// Layer pairs source < target are numbered by source, then by target: P = L * (L - 1) / 2.
struct HistoryHits {
  std::int64_t* hits;      // [settings, measures, P], or with groups [measures, groups, P]
  std::int64_t* resolved;  // [supports, L - 1, L]: test tokens whose longest context with so much
                           // support, among those of source layers 0..L-2, has 0..L-1 layers
  const std::uint32_t* groups = nullptr;  // [test tokens]: group of each
  std::size_t num_groups = 0;
  const std::uint32_t* chosen = nullptr;  // [P]: setting of each pair
};

// Predicts the experts at every layer from those at all layers up to every earlier one. The counts
// are exact, in one sweep over the source layers, and are added to `result`. Predictions are the
// most frequent experts among the training tokens with the context of the test token; ties go to
// the lowest id.
//
// Threads take source layers in turn. Memory beside the arguments: a copy of the ids that are
// needed (slot 0 of each layer, twice if it is both context and target; all slots if `best` or
// `sets` need them, and 4 bytes per token and layer for `sets`), 10 bytes per token, and for each
// thread about 60 bytes per token with one setting and 100 with 60 settings.
//
// Throws ExpertOutOfRange, ExpertRepeated where sets are needed, and std::invalid_argument for
// different shapes, no training token, more than 255 layers, or settings that ContextTree refuses.
void count_history_hits(const ExpertView& train, const ExpertView& test,
                        const HistoryQuestion& question, const HistoryHits& result,
                        unsigned threads);

}  // namespace routestats
