#pragma once

#include <cmath>
#include <cstdint>

#include "base/host_device.hpp"
#include "capture/routing_input.hpp"

// Compares what a router chose for a token with what a kernel chose that routes by itself, from the
// same logits.
namespace routestats {

enum class ScoreKind : std::uint8_t { logit, sigmoid };

// What the experts of one layer are chosen by. Softmax keeps the order of the logits, so that its
// score is the logit.
struct RouterScores {
  const void* logits;  // [rows, experts], row-major
  WeightType logit_type;
  const void*
      bias;  // [experts], added to the scores for the choice alone; null where there is none
  WeightType bias_type;
  ScoreKind kind;
  std::uint32_t experts;
  std::uint32_t groups;         // of equally many consecutive experts
  std::uint32_t chosen_groups;  // only experts of the best groups are chosen
  float unit;                   // how far a score may be off, relative to its scale
};

// A score with the least and the greatest value that it may have had where the choice was made.
struct ScoreRange {
  float low;
  float high;
};

ROUTESTATS_HOST_DEVICE inline ScoreRange score_of(const RouterScores& scores, std::uint64_t row,
                                                  std::uint32_t expert) {
  float value = load_float(scores.logits, scores.logit_type, row * scores.experts + expert);
  float scale = std::fabs(value);
  if (scores.kind == ScoreKind::sigmoid) {
    value = 1.0F / (1.0F + std::exp(-value));
    scale = 1.0F;
  } else if (scale < 1.0F) {
    scale = 1.0F;
  }
  if (scores.bias != nullptr) {
    const float bias = load_float(scores.bias, scores.bias_type, expert);
    value += bias;
    scale += std::fabs(bias);
  }
  const float slack = scores.unit * scale;
  return {value - slack, value + slack};
}

// The score of a group: of its two best experts together where there is a bias, else of its best.
ROUTESTATS_HOST_DEVICE inline ScoreRange group_score(const RouterScores& scores, std::uint64_t row,
                                                     std::uint32_t group) {
  const std::uint32_t size = scores.experts / scores.groups;
  const float least = -INFINITY;
  ScoreRange best{least, least};
  ScoreRange second{least, least};
  const auto rank = [](float value, float& first, float& next) {
    if (value > first) {
      next = first;
      first = value;
    } else if (value > next) {
      next = value;
    }
  };
  for (std::uint32_t i = 0; i < size; ++i) {
    const ScoreRange score = score_of(scores, row, group * size + i);
    rank(score.low, best.low, second.low);
    rank(score.high, best.high, second.high);
  }
  if (scores.bias == nullptr) return best;
  return {best.low + second.low, best.high + second.high};
}

// How many other groups are better than `group`: at most, or for sure.
ROUTESTATS_HOST_DEVICE inline std::uint32_t better_groups(const RouterScores& scores,
                                                          std::uint64_t row, std::uint32_t group,
                                                          bool at_most) {
  ScoreRange own{0.0F, 0.0F};
  std::uint32_t better = 0;
  for (std::uint32_t i = 0; i <= scores.groups; ++i) {  // the group itself, then all
    const ScoreRange score = group_score(scores, row, i == 0 ? group : i - 1);
    if (i == 0) own = score;
    if (i == 0 || i - 1 == group) continue;
    better += (at_most ? score.high >= own.low : score.low > own.high) ? 1u : 0u;
  }
  return better;
}

template <class IdOf>
ROUTESTATS_HOST_DEVICE inline bool has_expert(std::uint32_t slots, IdOf&& id_of, std::int64_t id) {
  for (std::uint32_t k = 0; k < slots; ++k) {
    if (id_of(k) == id) return true;
  }
  return false;
}

// Whether these experts may be the best: no other one is better for sure. Nothing is where a logit
// is NaN.
template <class IdOf>
ROUTESTATS_HOST_DEVICE inline bool may_be_best(const RouterScores& scores, std::uint64_t row,
                                               std::uint32_t top_k, IdOf&& id_of) {
  const std::uint32_t size = scores.experts / scores.groups;
  const bool grouped = scores.groups > scores.chosen_groups;
  float least = INFINITY;
  std::uint32_t groups = 0;
  for (std::uint32_t k = 0; k < top_k; ++k) {
    const std::int64_t id = id_of(k);
    if (id < 0 || id >= static_cast<std::int64_t>(scores.experts)) return false;
    if (has_expert(k, id_of, id)) return false;
    const float high = score_of(scores, row, static_cast<std::uint32_t>(id)).high;
    if (high != high) return false;
    if (high < least) least = high;
    if (!grouped) continue;
    const auto group = static_cast<std::uint32_t>(id) / size;
    const auto group_of = [&](std::uint32_t slot) {
      return std::int64_t{static_cast<std::uint32_t>(id_of(slot)) / size};
    };
    if (has_expert(k, group_of, group)) continue;
    if (++groups > scores.chosen_groups) return false;
    if (better_groups(scores, row, group, false) >= scores.chosen_groups) return false;
  }
  for (std::uint32_t group = 0; group < scores.groups; ++group) {
    if (grouped && better_groups(scores, row, group, true) >= scores.chosen_groups) continue;
    for (std::uint32_t expert = group * size; expert < (group + 1) * size; ++expert) {
      if (score_of(scores, row, expert).low <= least) continue;
      if (!has_expert(top_k, id_of, expert)) return false;
    }
  }
  return true;
}

enum class Agreement : std::uint8_t { same, near_tie, different };

// Whether two choices of a row are the same set; if not, whether each may be the best, so that the
// experts in which they differ tie within rounding.
template <class Ours, class Theirs>
ROUTESTATS_HOST_DEVICE inline Agreement agreement_of(const RouterScores& scores, std::uint64_t row,
                                                     std::uint32_t top_k, Ours&& ours,
                                                     Theirs&& theirs) {
  bool same = true;
  for (std::uint32_t k = 0; k < top_k && same; ++k) {
    same = has_expert(top_k, ours, theirs(k)) && !has_expert(k, theirs, theirs(k));
  }
  if (same) return Agreement::same;
  for (std::uint32_t side = 0; side < 2; ++side) {
    const auto id_of = [&](std::uint32_t k) { return side == 0 ? ours(k) : theirs(k); };
    if (!may_be_best(scores, row, top_k, id_of)) return Agreement::different;
  }
  return Agreement::near_tie;
}

}  // namespace routestats
