#include "contexts/context_tree.hpp"

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
constexpr std::size_t kMaxDepth = 255;  // fits std::uint8_t; open nodes have different depths

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

// One sweep over the places, with a stack of the intervals that are open. A node opens where its
// first two tokens meet, or when its first child closes, so there are fewer nodes than tokens, and
// the root. All lists are written through pointers, and the lists of both sides at every token,
// because the processor cannot predict the side of a token.
void ContextTree::find_nodes(std::span<const std::uint32_t> order,
                             std::span<const std::uint8_t> lengths) {
  const std::size_t tokens = order.size();
  nodes_.resize(tokens + 1);
  finished_.resize(tokens + 1);
  open_.resize(kMaxDepth + 1);
  train_order_.resize(tokens + 1);
  test_order_.resize(tokens + 1);
  lowest_.resize(tokens + 1);
  Node* const nodes = nodes_.data();
  std::uint32_t* finished = finished_.data();
  std::uint32_t* top = open_.data();  // the innermost open node
  std::uint32_t num_nodes = 1, num_train = 0, num_test = 0;
  nodes[kRoot] = {kRoot, 0, 0, 0};
  *top = kRoot;

  const auto open = [&](std::uint32_t depth, std::uint32_t low) {
    nodes[num_nodes] = {kRoot, low, 0, depth};
    *++top = num_nodes++;
  };
  const auto close_deeper_than = [&](std::uint32_t depth) {
    while (nodes[*top].depth > depth) {
      const std::uint32_t closed = *top--;
      if (nodes[*top].depth < depth) open(depth, nodes[closed].low);
      nodes[closed].parent = *top;
      nodes[closed].high = num_train;
      *finished++ = closed;
    }
  };
  for (std::size_t i = 0; i < tokens; ++i) {
    close_deeper_than(lengths[i]);
    const std::uint32_t next = i + 1 < tokens ? lengths[i + 1] : 0;
    if (next > nodes[*top].depth) open(next, num_train);
    const std::uint32_t token = order[i];
    const bool is_train = token < train_;
    train_order_[num_train] = token;
    test_order_[num_test] = token;
    lowest_[num_test] = *top;
    num_train += is_train;
    num_test += !is_train;
  }
  close_deeper_than(0);
  nodes[kRoot].high = num_train;
  *finished++ = kRoot;
  nodes_.resize(num_nodes);
  finished_.resize(static_cast<std::size_t>(finished - finished_.data()));
  train_order_.resize(num_train);
  test_order_.resize(num_test);
}

// Walks from each test token towards the root until every setting has its context. A node holds the
// contexts longer than those of its parent, up to its own depth. A setting (order m, support s)
// resolves to the context of length min(m, the depth of the lowest node with s training tokens).
void ContextTree::resolve(std::int64_t* resolved, std::size_t columns) {
  uses_.clear();
  masks_.clear();
  numbers_.assign(nodes_.size(), kUnused);
  const auto& supports = settings_.supports;
  const std::uint64_t all =
      every_order_.back() * (~std::uint64_t{0} >> (64 - settings_.orders.size()));
  std::vector<std::uint64_t> longer(columns + 1);  // [d]: how many orders are greater than d
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

// There are few masks, and they repeat.
std::uint32_t ContextTree::mask_number(std::uint64_t mask) {
  const auto found = std::find(masks_.begin(), masks_.end(), mask);
  if (found == masks_.end()) {
    masks_.push_back(mask);
    return static_cast<std::uint32_t>(masks_.size() - 1);
  }
  return static_cast<std::uint32_t>(found - masks_.begin());
}

// Nodes that differ only in their test tokens are one interval. They follow one another here.
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
