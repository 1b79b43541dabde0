#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "contexts/context_tree.hpp"
#include "contexts/layer_columns.hpp"
#include "contexts/nested_sweep.hpp"
#include "prediction/history_hits.hpp"

namespace routestats {

// Hits of one source layer's contexts at one target layer after another.
// `Id` holds an expert; `Key` a number of training tokens times the next power of two from E.
template <class Id, class Key>
class HistoryScores {
 public:
  using Lanes = typename LayerGroups<Id>::Lanes;

  HistoryScores(const HistoryQuestion& question, const HistoryHits& result, std::size_t layers,
                std::size_t slots, std::size_t train);

  // Takes the contexts of a source layer; both must stay as they are until the next start.
  void start(const ContextTree& tree, const NestedSweep& sweep);

  // Whether the most frequent first choice is the token's, at those of the targets `first_target`,
  // ..., first_target + kLanes - 1 that come after the source. `ids` are all tokens' first choices.
  void count_first(std::span<const Lanes> ids, std::size_t source, std::size_t first_target);
  // How many of the token's experts are among the most frequent. `ids` are all tokens' sets.
  void count_best(std::span<const Id> ids, std::size_t source, std::size_t target);

 private:
  void find_most_frequent();
  void add_members(std::uint32_t low, std::uint32_t high);
  Key empty_key(std::size_t expert) const { return static_cast<Key>(experts_ - 1 - expert); }
  void score_sets(std::uint32_t interval);
  void score_set(std::uint32_t use, bool sorted);
  std::uint32_t rank_of(std::size_t expert) const;
  void rank_all();
  void choose_sinks(std::size_t pair);
  void add_up(std::size_t measure, std::size_t pair, const std::int64_t* sums);
  std::size_t pair_number(std::size_t source, std::size_t target) const {
    return source * (2 * layers_ - source - 1) / 2 + target - source - 1;
  }

  const HistoryQuestion& question_;
  const HistoryHits& result_;
  const std::size_t layers_;
  const std::size_t experts_;
  const std::size_t slots_;
  const std::size_t train_;
  const ContextTree* tree_ = nullptr;
  const NestedSweep* sweep_ = nullptr;
  // At the target, in the order of the contexts.
  std::vector<Lanes> train_first_, test_first_;
  std::vector<Id> train_sets_, test_sets_;
  std::vector<Lanes> most_frequent_;  // by interval

  // By lane and expert, a counter and the expert in one number: the greater key is of the more
  // frequent expert, and of equally frequent ones of the lower id.
  std::vector<Key> keys_;
  const Key one_;  // what an occurrence adds

  std::vector<std::uint32_t> sinks_;  // by use: which sum its hits go to
  std::size_t num_sinks_ = 0;
  std::uint32_t chosen_ = 0;  // with groups, the setting that the sinks are for
  bool sinks_valid_ = false;
  std::vector<std::int64_t> sums_;

  std::vector<std::uint32_t> first_use_, uses_;  // uses by interval: uses_[first_use_[i] ...]
  std::vector<std::uint32_t> by_rank_, ranks_;
};

extern template class HistoryScores<std::uint8_t, std::uint32_t>;
extern template class HistoryScores<std::uint16_t, std::uint32_t>;
extern template class HistoryScores<std::uint8_t, std::uint64_t>;
extern template class HistoryScores<std::uint16_t, std::uint64_t>;

}  // namespace routestats
