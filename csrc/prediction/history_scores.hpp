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

// Hits of the contexts of one source layer, at one target layer after another. `Id` holds an
// expert; `Key` holds a number of training tokens times the least power of two from E on.
template <class Id, class Key>
class HistoryScores {
 public:
  using Lanes = typename LayerGroups<Id>::Lanes;

  HistoryScores(const HistoryQuestion& question, const HistoryHits& result, std::size_t layers,
                std::size_t slots, std::size_t train);

  // Takes the contexts of a source layer; both arguments must stay unchanged until the next start.
  void start(const ContextTree& tree, const NestedSweep& sweep);

  // Whether the most frequent first choice is the one of the token, at the targets `first_target`,
  // ..., first_target + kLanes - 1 that come after the source. `ids` are the first choices of all
  // tokens.
  void count_first(std::span<const Lanes> ids, std::size_t source, std::size_t first_target);
  // How many experts of the token are among the most frequent ones. `ids` are the sets of all
  // tokens.
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
  // Ids at the target, in the order of the contexts.
  std::vector<Lanes> train_first_, test_first_;
  std::vector<Id> train_sets_, test_sets_;
  std::vector<Lanes> most_frequent_;  // by interval

  // By lane and expert: a count and the expert in one number. The greater key belongs to the more
  // frequent expert, or to the lower id if both are equally frequent.
  std::vector<Key> keys_;
  const Key one_;  // one occurrence

  std::vector<std::uint32_t> sinks_;  // by use: the sum that its hits go to
  std::size_t num_sinks_ = 0;
  std::uint32_t chosen_ = 0;  // with groups, the setting of the sinks
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
