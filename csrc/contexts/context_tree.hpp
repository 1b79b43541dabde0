#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace routestats {

// Which contexts are asked for: at most so many of the latest layers, and the longest of them that
// at least so many training tokens share. At most 64 combinations, numbered support-major:
// `support * orders.size() + order`.
struct HistorySettings {
  std::vector<std::uint32_t> orders;    // ascending, from 1; any number beyond the layers is "all"
  std::vector<std::uint32_t> supports;  // ascending, from 1
  std::size_t size() const { return orders.size() * supports.size(); }
};

// The contexts that the test tokens resolve to at one source layer, for all settings at once.
//
// In the order of Pbwt the tokens that share a context are an interval, and the intervals of all
// contexts form a tree (that of the longest-common-prefix intervals). A test token's contexts are
// its ancestors: the deepest with enough training tokens, or the one at the greatest order.
// Tokens 0 .. train-1 are for training, those from there on for testing.
class ContextTree {
 public:
  // Places of training tokens, [low, high) in train_order().
  struct Interval {
    std::uint32_t low;
    std::uint32_t high;
    bool operator==(const Interval&) const = default;
  };
  // Where a test token resolves to the interval for the settings of a mask.
  struct Use {
    std::uint32_t interval;
    std::uint32_t test;  // place in test_order()
    std::uint32_t mask;
  };

  ContextTree(std::size_t train, const HistorySettings& settings);

  // `order` and `lengths` as of a Pbwt; adds to `resolved` [supports, columns] how many test tokens
  // resolve at each context length without a limit on the order.
  void build(std::span<const std::uint32_t> order, std::span<const std::uint8_t> lengths,
             std::int64_t* resolved, std::size_t columns);

  std::span<const std::uint32_t> train_order() const { return train_order_; }
  std::span<const std::uint32_t> test_order() const { return test_order_; }
  // Distinct; a contained one comes before the one that contains it, siblings in their order.
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
  std::vector<std::uint32_t> finished_;  // nodes, contained before containing
  std::vector<std::uint32_t> open_;      // nodes, from the root to the place the sweep is at
  std::vector<std::uint32_t> lowest_;    // by test token: the deepest node around it
  std::vector<std::uint32_t> numbers_;   // by node: its interval, if it is used
  std::vector<std::uint32_t> train_order_, test_order_;
  std::vector<Interval> intervals_;
  std::vector<Use> uses_;
  std::vector<std::uint64_t> masks_;
};

}  // namespace routestats
