#include "prediction/history_scores.hpp"

#include <algorithm>
#include <array>
#include <bit>

namespace routestats {
namespace {

// From this many test tokens on the experts of an interval are sorted once. Below, the ranks of
// each token are found by comparison with all experts.
constexpr std::size_t kUsesWorthSorting = 8;

}  // namespace

template <class Id, class Key>
HistoryScores<Id, Key>::HistoryScores(const HistoryQuestion& question, const HistoryHits& result,
                                      std::size_t layers, std::size_t slots, std::size_t train)
    : question_(question),
      result_(result),
      layers_(layers),
      experts_(question.experts),
      slots_(slots),
      train_(train),
      keys_(kLanes * question.experts),
      one_(static_cast<Key>(std::bit_ceil(question.experts))),
      by_rank_(question.experts),
      ranks_(question.experts) {
  for (std::size_t i = 0; i < keys_.size(); ++i) keys_[i] = empty_key(i % experts_);
  for (std::size_t e = 0; e < experts_; ++e) by_rank_[e] = static_cast<std::uint32_t>(e);
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
void HistoryScores<Id, Key>::count_first(std::span<const Lanes> ids, std::size_t source,
                                         std::size_t first_target) {
  const auto take = [&](std::span<const std::uint32_t> order, std::vector<Lanes>& to) {
    to.resize(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) to[i] = ids[order[i]];
  };
  take(tree_->train_order(), train_first_);
  take(tree_->test_order(), test_first_);
  find_most_frequent();

  const std::size_t begin = first_target > source ? 0 : source + 1 - first_target;
  const std::size_t end = std::min(kLanes, layers_ - first_target);
  const auto uses = tree_->uses();
  const auto hit = [&](const ContextTree::Use& use, std::size_t lane) {
    return most_frequent_[use.interval][lane] == test_first_[use.test][lane];
  };
  if (result_.groups == nullptr) {
    choose_sinks(0);
    sums_.assign(num_sinks_ * kLanes, 0);
    for (std::size_t u = 0; u < uses.size(); ++u) {
      std::int64_t* sums = sums_.data() + sinks_[u];
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        sums[lane * num_sinks_] += hit(uses[u], lane);
      }
    }
    for (std::size_t lane = begin; lane < end; ++lane) {
      add_up(0, pair_number(source, first_target + lane), sums_.data() + lane * num_sinks_);
    }
    return;
  }
  for (std::size_t lane = begin; lane < end; ++lane) {
    const std::size_t pair = pair_number(source, first_target + lane);
    choose_sinks(pair);
    sums_.assign(num_sinks_, 0);
    for (std::size_t u = 0; u < uses.size(); ++u) sums_[sinks_[u]] += hit(uses[u], lane);
    add_up(0, pair, sums_.data());
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::find_most_frequent() {
  const Lanes* ids = train_first_.data();
  const auto expert_bits = static_cast<Key>(one_ - 1);
  Key* const keys = keys_.data();
  std::array<Key, kLanes> best{};
  const auto add = [&](std::uint32_t from, std::uint32_t to) {
    for (std::uint32_t q = from; q < to; ++q) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const Key key = keys[lane * experts_ + ids[q][lane]] += one_;
        best[lane] = std::max(best[lane], key);
      }
    }
  };
  std::uint32_t low = 0, high = 0;
  for (const auto& step : sweep_->steps) {
    Lanes& found = most_frequent_[step.interval];
    if (step.first) {
      // Most intervals hold one or two training tokens and stand alone.
      if (step.last && step.high - step.low <= 2) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
          found[lane] = std::min(ids[step.low][lane], ids[step.high - 1][lane]);
        }
        continue;
      }
      low = high = step.high;
      best.fill(0);
    }
    add(step.low, low);
    add(high, step.high);
    low = step.low;
    high = step.high;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      found[lane] = static_cast<Id>(empty_key(best[lane] & expert_bits));
    }
    if (!step.last) continue;
    if (high - low >= experts_) {
      for (std::size_t i = 0; i < keys_.size(); ++i) keys[i] = empty_key(i % experts_);
    } else {
      for (std::uint32_t q = low; q < high; ++q) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
          keys[lane * experts_ + ids[q][lane]] = empty_key(ids[q][lane]);
        }
      }
    }
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::count_best(std::span<const Id> ids, std::size_t source,
                                        std::size_t target) {
  const auto take = [&](std::span<const std::uint32_t> order, std::vector<Id>& to) {
    to.resize(order.size() * slots_);
    for (std::size_t i = 0; i < order.size(); ++i) {
      std::copy_n(ids.data() + order[i] * slots_, slots_, to.data() + i * slots_);
    }
  };
  take(tree_->train_order(), train_sets_);
  take(tree_->test_order(), test_sets_);

  const std::size_t pair = pair_number(source, target);
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
    if (!step.last) continue;
    for (std::size_t i = low * slots_; i < high * slots_; ++i) {
      keys_[train_sets_[i]] = empty_key(train_sets_[i]);
    }
  }
  for (std::size_t m = 0; m < measures; ++m) {
    add_up((question_.top1 ? 1 : 0) + m, pair, sums_.data() + m * num_sinks_);
  }
}

template <class Id, class Key>
void HistoryScores<Id, Key>::add_members(std::uint32_t low, std::uint32_t high) {
  for (std::size_t i = low * slots_; i < high * slots_; ++i) keys_[train_sets_[i]] += one_;
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
  const Id* chosen = test_sets_.data() + tree_->uses()[use].test * slots_;
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
  for (std::size_t e = 0; e < experts_; ++e) better += keys_[e] > own;
  return static_cast<std::uint32_t>(better);
}

template <class Id, class Key>
void HistoryScores<Id, Key>::rank_all() {
  std::sort(by_rank_.begin(), by_rank_.end(),
            [&](std::uint32_t a, std::uint32_t b) { return keys_[a] > keys_[b]; });
  for (std::uint32_t r = 0; r < by_rank_.size(); ++r) ranks_[by_rank_[r]] = r;
}

// One sum for every mask of settings; or one for every group, and one for uses by other settings.
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

// Each pair is added to by one thread.
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
