#include "prediction/history_hits.hpp"

#include <algorithm>
#include <bit>
#include <mutex>
#include <stdexcept>
#include <string>

#include "base/workers.hpp"
#include "contexts/layer_columns.hpp"
#include "contexts/nested_sweep.hpp"
#include "contexts/pbwt.hpp"
#include "prediction/history_scores.hpp"

namespace routestats {
namespace {

constexpr std::size_t kMaxLayers = 255;  // the lengths of a Pbwt<std::uint8_t>

// The symbols of the contexts, layer by layer, and the order of the tokens.
template <class Id>
class Contexts {
 public:
  Contexts(const LayerColumns<Id>& first, const SetColumns* sets, std::size_t tokens,
           std::size_t experts)
      : first_(first), sets_(sets), experts_(experts), pbwt_(tokens) {}

  // Goes on by one layer and returns its number, unless this is `end`. Takes over the order of the
  // tokens by the layers up to it.
  std::size_t next(std::size_t end, std::vector<std::uint32_t>& order,
                   std::vector<std::uint8_t>& lengths) {
    const std::lock_guard lock(mutex_);
    const std::size_t layer = pbwt_.steps();
    if (layer == end) return end;
    if (sets_ != nullptr) {
      pbwt_.step(sets_->layer(layer), sets_->distinct(layer));
    } else {
      pbwt_.step(first_.layer(layer), experts_);
    }
    order.assign(pbwt_.order().begin(), pbwt_.order().end());
    lengths.assign(pbwt_.lengths().begin(), pbwt_.lengths().end());
    return layer;
  }

 private:
  const LayerColumns<Id>& first_;
  const SetColumns* sets_;
  const std::size_t experts_;
  Pbwt<std::uint8_t> pbwt_;
  std::mutex mutex_;
};

void check_arguments(const ExpertView& train, const ExpertView& test,
                     const HistoryQuestion& question) {
  if (train.layers != test.layers || train.slots != test.slots) {
    throw std::invalid_argument("test: expected the layers and slots of train");
  }
  if (train.tokens == 0) throw std::invalid_argument("train: expected at least 1 token, got 0");
  if (train.slots == 0) throw std::invalid_argument("train: expected at least 1 slot, got 0");
  if (train.layers > kMaxLayers) {
    throw std::invalid_argument("train: expected at most 255 layers, got " +
                                std::to_string(train.layers));
  }
  if (question.best.size() > kMaxBest) {
    throw std::invalid_argument("best: expected at most 8 sizes, got " +
                                std::to_string(question.best.size()));
  }
  check_num_experts(question.experts);
}

template <class Id, class Key>
void count_all(const ExpertView& train, const ExpertView& test, const HistoryQuestion& question,
               const HistoryHits& result, unsigned threads) {
  const std::size_t layers = train.layers;
  const bool need_members = !question.best.empty() || question.sets;
  LayerGroups<Id> first_by_group;
  if (question.top1) first_by_group = LayerGroups<Id>(train, test, threads);
  LayerColumns<Id> first, members;
  if (!question.sets) first = LayerColumns<Id>(train, test, 1, threads);
  if (need_members) members = LayerColumns<Id>(train, test, train.slots, threads);
  SetColumns sets;
  if (question.sets) sets = SetColumns(members, layers, question.experts, threads);
  Contexts<Id> contexts(first, question.sets ? &sets : nullptr, train.tokens + test.tokens,
                        question.experts);

  const std::size_t supports = question.settings.supports.size();
  run_workers(layers - 1, threads, [&](ItemQueue&) {
    ContextTree tree(train.tokens, question.settings);
    NestedSweep sweep;
    HistoryScores<Id, Key> scores(question, result, layers, train.slots, train.tokens);
    std::vector<std::uint32_t> order;
    std::vector<std::uint8_t> lengths;
    std::vector<std::int64_t> resolved(supports * layers);
    for (;;) {
      const std::size_t source = contexts.next(layers - 1, order, lengths);
      if (source == layers - 1) return;
      std::fill(resolved.begin(), resolved.end(), 0);
      tree.build(order, lengths, resolved.data(), layers);
      for (std::size_t s = 0; s < supports; ++s) {
        std::int64_t* to = result.resolved + (s * (layers - 1) + source) * layers;
        for (std::size_t z = 0; z < layers; ++z) to[z] += resolved[s * layers + z];
      }
      sweep.plan(tree.intervals());
      scores.start(tree, sweep);
      for (std::size_t g = (source + 1) / kLanes; question.top1 && g * kLanes < layers; ++g) {
        scores.count_first(first_by_group.group(g), source, g * kLanes);
      }
      for (std::size_t t = source + 1; !question.best.empty() && t < layers; ++t) {
        scores.count_best(members.layer(t), source, t);
      }
    }
  });
}

}  // namespace

void count_history_hits(const ExpertView& train, const ExpertView& test,
                        const HistoryQuestion& question, const HistoryHits& result,
                        unsigned threads) {
  check_arguments(train, test, question);
  check_experts(train, question.experts, 0, threads);
  check_experts(test, question.experts, 0, threads);
  if (question.sets || !question.best.empty()) {
    check_distinct(train, "train", threads);
    check_distinct(test, "test", threads);
  }
  if (train.layers < 2) return;
  // A key holds a count in the bits above those of an expert.
  const bool narrow = train.tokens < (std::uint64_t{1} << 32) / std::bit_ceil(question.experts);
  const auto run = narrow ? (question.experts <= 256 ? count_all<std::uint8_t, std::uint32_t>
                                                     : count_all<std::uint16_t, std::uint32_t>)
                          : (question.experts <= 256 ? count_all<std::uint8_t, std::uint64_t>
                                                     : count_all<std::uint16_t, std::uint64_t>);
  run(train, test, question, result, threads);
}

}  // namespace routestats
