#include "history_scores.hpp"

#include <algorithm>
#include <bit>

namespace routestats {
namespace {

// From so many test tokens on an interval's experts are sorted once, rather than each token's
// ranks found by comparing with all experts.
constexpr std::size_t kUsesWorthSorting = 8;

}  // namespace

template <class Id, class Key>
HistoryScores<Id, Key>::HistoryScores(const HistoryQuestion& question, const HistoryHits& result,
                                      std::size_t layers, std::size_t slots, std::size_t train)
    : question_(question),
      result_(result),
      layers_(layers),
      slots_(slots),
      train_(train),
      keys_(question.experts),
      one_(static_cast<Key>(std::bit_ceil(question.experts))),
      by_rank_(question.experts),
      ranks_(question.experts) {
  for (std::size_t e = 0; e < keys_.size(); ++e) {
    keys_[e] = static_cast<Key>(keys_.size() - 1 - e);
    by_rank_[e] = static_cast<std::uint32_t>(e);
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::start(const ContextTree& tree, const NestedSweep& sweep) {
  tree_ = &tree;
  sweep_ = &sweep;
  sinks_valid_ = false;
  most_frequent_.resize(tree.intervals().size());
  if (question_.best.empty()) return;
  first_use_.assign(tree.intervals().size() + 2, 0);
  uses_.resize(tree.uses().size());
  for (const auto& use : tree.uses()) ++first_use_[use.interval + 2];
  for (std::size_t i = 2; i < first_use_.size(); ++i) first_use_[i] += first_use_[i - 1];
  for (std::uint32_t u = 0; u < uses_.size(); ++u) {
    uses_[first_use_[tree.uses()[u].interval + 1]++] = u;
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::count_first(std::span<const Id> ids, std::size_t source,
                                         std::size_t target) {
  const std::size_t pair = pair_number(source, target);
  gather(ids, 1);
  find_most_frequent();
  choose_sinks(pair);
  sums_.assign(num_sinks_, 0);
  const auto uses = tree_->uses();
  for (std::size_t u = 0; u < uses.size(); ++u) {
    sums_[sinks_[u]] += most_frequent_[uses[u].interval] == test_ids_[uses[u].test];
  }
  add_up(0, pair, sums_.data());
}

template <class Id, class Key>
void HistoryScores<Id, Key>::count_best(std::span<const Id> ids, std::size_t source,
                                        std::size_t target) {
  const std::size_t pair = pair_number(source, target);
  gather(ids, slots_);
  choose_sinks(pair);
  const std::size_t measures = question_.best.size() + 1;
  sums_.assign(measures * num_sinks_, 0);
  std::uint32_t low = 0, high = 0;
  for (const auto& step : sweep_->steps) {
    if (step.first) low = high = step.high;
    add_members(step.low, low);
    add_members(high, step.high);
    low = step.low;
    high = step.high;
    score_sets(step.interval);
    if (step.last) clear(low, high, slots_);
  }
  for (std::size_t m = 0; m < measures; ++m) {
    add_up((question_.top1 ? 1 : 0) + m, pair, sums_.data() + m * num_sinks_);
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::gather(std::span<const Id> ids, std::size_t slots) {
  const auto take = [&](std::span<const std::uint32_t> order, std::vector<Id>& to) {
    to.resize(order.size() * slots);
    if (slots == 1) {
      for (std::size_t i = 0; i < order.size(); ++i) to[i] = ids[order[i]];
      return;
    }
    for (std::size_t i = 0; i < order.size(); ++i) {
      std::copy_n(ids.data() + order[i] * slots, slots, to.data() + i * slots);
    }
  };
  take(tree_->train_order(), train_ids_);
  take(tree_->test_order(), test_ids_);
}

template <class Id, class Key>
void HistoryScores<Id, Key>::find_most_frequent() {
  const Id* ids = train_ids_.data();
  const Key expert_bits = static_cast<Key>(one_ - 1);
  const auto last_expert = static_cast<Key>(keys_.size() - 1);
  std::uint32_t low = 0, high = 0;
  Key best = 0;
  const auto add = [&](std::uint32_t from, std::uint32_t to) {
    for (std::uint32_t q = from; q < to; ++q) best = std::max(best, keys_[ids[q]] += one_);
  };
  for (const auto& step : sweep_->steps) {
    if (step.first) {
      // Most intervals hold a training token or two and stand alone.
      if (step.last && step.high - step.low <= 2) {
        most_frequent_[step.interval] = std::min(ids[step.low], ids[step.high - 1]);
        continue;
      }
      low = high = step.high;
      best = 0;
    }
    add(step.low, low);
    add(high, step.high);
    low = step.low;
    high = step.high;
    most_frequent_[step.interval] = static_cast<Id>(last_expert - (best & expert_bits));
    if (step.last) clear(low, high, 1);
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::add_members(std::uint32_t low, std::uint32_t high) {
  for (std::size_t i = low * slots_; i < high * slots_; ++i) keys_[train_ids_[i]] += one_;
}

template <class Id, class Key>
void HistoryScores<Id, Key>::clear(std::uint32_t low, std::uint32_t high, std::size_t slots) {
  const auto last_expert = static_cast<Key>(keys_.size() - 1);
  if ((high - low) * slots >= keys_.size()) {
    for (std::size_t e = 0; e < keys_.size(); ++e) keys_[e] = static_cast<Key>(last_expert - e);
    return;
  }
  for (std::size_t i = low * slots; i < high * slots; ++i) {
    keys_[train_ids_[i]] = static_cast<Key>(last_expert - train_ids_[i]);
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::score_sets(std::uint32_t interval) {
  const std::uint32_t begin = first_use_[interval], end = first_use_[interval + 1];
  const bool sorted = end - begin >= kUsesWorthSorting;
  if (sorted) rank_all();
  for (std::uint32_t i = begin; i < end; ++i) {
    const bool asked = result_.groups == nullptr || sinks_[uses_[i]] < result_.num_groups;
    if (asked) score_set(uses_[i], sorted);
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::score_set(std::uint32_t use, bool sorted) {
  const auto& best = question_.best;
  std::uint32_t found[kMaxBest] = {};
  const Id* chosen = test_ids_.data() + tree_->uses()[use].test * slots_;
  for (std::size_t k = 0; k < slots_; ++k) {
    const std::uint32_t rank = sorted ? ranks_[chosen[k]] : rank_of(chosen[k]);
    for (std::size_t m = 0; m < best.size(); ++m) found[m] += rank < best[m];
  }
  std::int64_t* sum = sums_.data() + sinks_[use];
  for (std::size_t m = 0; m < best.size(); ++m) sum[m * num_sinks_] += found[m];
  sum[best.size() * num_sinks_] += found[0] == slots_;
}

template <class Id, class Key>
std::uint32_t HistoryScores<Id, Key>::rank_of(std::size_t expert) const {
  const Key own = keys_[expert];
  Key better = 0;
  for (const Key key : keys_) better += key > own;
  return static_cast<std::uint32_t>(better);
}

template <class Id, class Key>
void HistoryScores<Id, Key>::rank_all() {
  std::sort(by_rank_.begin(), by_rank_.end(),
            [&](std::uint32_t a, std::uint32_t b) { return keys_[a] > keys_[b]; });
  for (std::uint32_t r = 0; r < by_rank_.size(); ++r) ranks_[by_rank_[r]] = r;
}

// A sum for every mask of settings; or for every group, and one for uses by other settings.
template <class Id, class Key>
void HistoryScores<Id, Key>::choose_sinks(std::size_t pair) {
  const bool grouped = result_.groups != nullptr;
  const std::uint32_t chosen = grouped ? result_.chosen[pair] : 0;
  if (sinks_valid_ && chosen == chosen_) return;
  const auto uses = tree_->uses();
  sinks_.resize(uses.size());
  num_sinks_ = grouped ? result_.num_groups + 1 : tree_->masks().size();
  for (std::size_t u = 0; u < uses.size(); ++u) {
    sinks_[u] = uses[u].mask;
    if (!grouped) continue;
    const bool asked = tree_->masks()[uses[u].mask] >> chosen & 1;
    const std::size_t token = tree_->test_order()[uses[u].test] - train_;
    sinks_[u] = asked ? result_.groups[token] : static_cast<std::uint32_t>(result_.num_groups);
  }
  chosen_ = chosen;
  sinks_valid_ = true;
}

// No two threads add to the same pair.
template <class Id, class Key>
void HistoryScores<Id, Key>::add_up(std::size_t measure, std::size_t pair,
                                    const std::int64_t* sums) {
  const std::size_t pairs = layers_ * (layers_ - 1) / 2;
  if (result_.groups != nullptr) {
    std::int64_t* to = result_.hits + measure * result_.num_groups * pairs + pair;
    for (std::size_t g = 0; g < result_.num_groups; ++g) to[g * pairs] += sums[g];
    return;
  }
  const std::size_t measures = question_.measures();
  for (std::size_t m = 0; m < tree_->masks().size(); ++m) {
    for (std::uint64_t rest = tree_->masks()[m]; rest != 0; rest &= rest - 1) {
      const auto setting = static_cast<std::size_t>(std::countr_zero(rest));
      result_.hits[(setting * measures + measure) * pairs + pair] += sums[m];
    }
  }
}

template class HistoryScores<std::uint8_t, std::uint32_t>;
template class HistoryScores<std::uint16_t, std::uint32_t>;
template class HistoryScores<std::uint8_t, std::uint64_t>;
template class HistoryScores<std::uint16_t, std::uint64_t>;

}  // namespace routestats
