#include "routestats/context_tree.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>

namespace routestats {
namespace {

constexpr std::uint32_t kRoot = 0;
constexpr std::uint32_t kUnused = std::numeric_limits<std::uint32_t>::max();
constexpr std::size_t kMaxSettings = 64;

void require_ascending(const char* name, const std::vector<std::uint32_t>& values) {
  const bool rising =
      std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) == values.end();
  if (values.empty() || values.front() == 0 || !rising) {
    throw std::invalid_argument(std::string(name) + ": expected ascending numbers from 1");
  }
}

}  // namespace

ContextTree::ContextTree(std::size_t train, const HistorySettings& settings)
    : train_(train), settings_(settings) {
  require_ascending("orders", settings.orders);
  require_ascending("supports", settings.supports);
  if (settings.size() > kMaxSettings) {
    throw std::invalid_argument("settings: expected at most 64 orders x supports, got " +
                                std::to_string(settings.size()));
  }
  every_order_.push_back(0);
  for (std::size_t s = 0; s < settings.supports.size(); ++s) {
    every_order_.push_back(every_order_.back() | std::uint64_t{1} << (s * settings.orders.size()));
  }
}

void ContextTree::build(std::span<const std::uint32_t> order, std::span<const std::uint8_t> lengths,
                        std::int64_t* resolved, std::size_t columns) {
  find_nodes(order, lengths);
  resolve(resolved, columns);
  number_intervals();
}

// One sweep over the places with a stack of the intervals that are open there. A node opens where
// its first two tokens meet, or when its first child closes.
void ContextTree::find_nodes(std::span<const std::uint32_t> order,
                             std::span<const std::uint8_t> lengths) {
  nodes_.clear();
  finished_.clear();
  train_order_.clear();
  test_order_.clear();
  lowest_.clear();
  nodes_.push_back({kRoot, 0, 0, 0});
  open_.assign(1, kRoot);

  const auto open = [&](std::uint32_t depth, std::uint32_t low) {
    open_.push_back(static_cast<std::uint32_t>(nodes_.size()));
    nodes_.push_back({kRoot, low, 0, depth});
  };
  const auto close_deeper_than = [&](std::uint32_t depth) {
    while (nodes_[open_.back()].depth > depth) {
      const std::uint32_t closed = open_.back();
      open_.pop_back();
      if (nodes_[open_.back()].depth < depth) open(depth, nodes_[closed].low);
      nodes_[closed].parent = open_.back();
      nodes_[closed].high = static_cast<std::uint32_t>(train_order_.size());
      finished_.push_back(closed);
    }
  };
  for (std::size_t i = 0; i < order.size(); ++i) {
    close_deeper_than(lengths[i]);
    const std::uint32_t next = i + 1 < order.size() ? lengths[i + 1] : 0;
    if (next > nodes_[open_.back()].depth) {
      open(next, static_cast<std::uint32_t>(train_order_.size()));
    }
    if (order[i] < train_) {
      train_order_.push_back(order[i]);
    } else {
      test_order_.push_back(order[i]);
      lowest_.push_back(open_.back());
    }
  }
  close_deeper_than(0);
  nodes_[kRoot].high = static_cast<std::uint32_t>(train_order_.size());
  finished_.push_back(kRoot);
}

// Walks from each test token towards the root until every setting has its context. A node holds the
// contexts longer than its parent's, up to its own depth; a setting (order m, support s) resolves
// to the one of length min(m, the depth of the lowest node with s training tokens).
void ContextTree::resolve(std::int64_t* resolved, std::size_t columns) {
  uses_.clear();
  masks_.clear();
  numbers_.assign(nodes_.size(), kUnused);
  const auto& supports = settings_.supports;
  const std::uint64_t all =
      every_order_.back() * (~std::uint64_t{0} >> (64 - settings_.orders.size()));
  std::vector<std::uint64_t> longer(columns + 1);  // [d]: the orders greater than d
  for (std::size_t d = 0; d < longer.size(); ++d) {
    for (std::size_t m = 0; m < settings_.orders.size(); ++m) {
      if (settings_.orders[m] > d) longer[d] |= std::uint64_t{1} << m;
    }
  }
  for (std::uint32_t test = 0; test < test_order_.size(); ++test) {
    std::uint32_t at = lowest_[test];
    while (nodes_[at].high == nodes_[at].low) at = nodes_[at].parent;
    std::uint64_t done = 0;
    std::size_t met_below = 0;
    while (done != all) {
      const Node& node = nodes_[at];
      std::size_t met = met_below;
      if (at == kRoot) {
        met = supports.size();
      } else {
        while (met < supports.size() && supports[met] <= node.high - node.low) ++met;
      }
      const std::uint64_t here = at == kRoot ? longer[0] : longer[nodes_[node.parent].depth];
      const std::uint64_t deeper = longer[node.depth];
      const std::uint64_t mask = (every_order_[met] - every_order_[met_below]) * here |
                                 every_order_[met_below] * (here & ~deeper);
      for (std::size_t s = met_below; s < met; ++s) ++resolved[s * columns + node.depth];
      if (mask != 0) {
        uses_.push_back({at, test, mask_number(mask)});
        numbers_[at] = 0;
      }
      done |= mask;
      met_below = met;
      at = node.parent;
    }
  }
}

// Few masks occur, and the same ones over and over.
std::uint32_t ContextTree::mask_number(std::uint64_t mask) {
  const auto found = std::find(masks_.begin(), masks_.end(), mask);
  if (found == masks_.end()) {
    masks_.push_back(mask);
    return static_cast<std::uint32_t>(masks_.size() - 1);
  }
  return static_cast<std::uint32_t>(found - masks_.begin());
}

// Nodes that differ in their test tokens alone are one interval; they follow one another here.
void ContextTree::number_intervals() {
  intervals_.clear();
  for (const std::uint32_t node : finished_) {
    if (numbers_[node] == kUnused) continue;
    const Interval interval{nodes_[node].low, nodes_[node].high};
    if (intervals_.empty() || intervals_.back() != interval) intervals_.push_back(interval);
    numbers_[node] = static_cast<std::uint32_t>(intervals_.size() - 1);
  }
  for (Use& use : uses_) use.interval = numbers_[use.interval];
}

}  // namespace routestats
