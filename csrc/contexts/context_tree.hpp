#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace routestats {

// The settings of contexts. A context has at most `order` of the latest layers, and is the longest
// one that at least `support` training tokens share. At most 64 combinations, numbered
// support-major: `support * orders.size() + order`.
struct HistorySettings {
  std::vector<std::uint32_t> orders;    // ascending, from 1; any number beyond the layers is "all"
  std::vector<std::uint32_t> supports;  // ascending, from 1
  std::size_t size() const { return orders.size() * supports.size(); }
};

// The contexts of the test tokens at one source layer, for all settings at once.
//
// In the order of Pbwt the tokens that share a context are an interval, and the intervals of all
// contexts form a tree (of the longest-common-prefix intervals). The contexts of a test token are
// its ancestors; a setting resolves to the deepest ancestor with enough training tokens, or to the
// one at the greatest order. Tokens 0 .. train-1 are for training, the others for testing.
class ContextTree {
 public:
  // Places of training tokens, [low, high) in train_order().
  struct Interval {
    std::uint32_t low;
    std::uint32_t high;
    bool operator==(const Interval&) const = default;
  };
  // A test token whose context is the interval, for the settings of the mask.
  struct Use {
    std::uint32_t interval;
    std::uint32_t test;  // place in test_order()
    std::uint32_t mask;
  };

  ContextTree(std::size_t train, const HistorySettings& settings);

  // `order` and `lengths` come from a Pbwt. Adds to `resolved` [supports, columns] the number of
  // test tokens that resolve at each context length, without a limit on the order.
  void build(std::span<const std::uint32_t> order, std::span<const std::uint8_t> lengths,
             std::int64_t* resolved, std::size_t columns);

  std::span<const std::uint32_t> train_order() const { return train_order_; }
  std::span<const std::uint32_t> test_order() const { return test_order_; }
  // Distinct intervals. One that lies in another comes before it; siblings stand in their order.
  std::span<const Interval> intervals() const { return intervals_; }
  // In the order of the test tokens.
  std::span<const Use> uses() const { return uses_; }
  // Bit s of a mask: setting s.
  std::span<const std::uint64_t> masks() const { return masks_; }

 private:
  struct Node {
    std::uint32_t parent;
    std::uint32_t low;
    std::uint32_t high;
    std::uint32_t depth;  // the length of the context
  };

  void find_nodes(std::span<const std::uint32_t> order, std::span<const std::uint8_t> lengths);
  void resolve(std::int64_t* resolved, std::size_t columns);
  void number_intervals();
  std::uint32_t mask_number(std::uint64_t mask);

  const std::size_t train_;
  const HistorySettings settings_;
  std::vector<std::uint64_t> every_order_;  // [k]: bit 0 of each of the first k supports' fields

  std::vector<Node> nodes_;
  std::vector<std::uint32_t> finished_;  // nodes, the inner before the outer
  std::vector<std::uint32_t> open_;      // nodes, from the root to the current place
  std::vector<std::uint32_t> lowest_;    // by test token: the deepest node around it
  std::vector<std::uint32_t> numbers_;   // by node: its interval, if it is used
  std::vector<std::uint32_t> train_order_, test_order_;
  std::vector<Interval> intervals_;
  std::vector<Use> uses_;
  std::vector<std::uint64_t> masks_;
};

}  // namespace routestats
