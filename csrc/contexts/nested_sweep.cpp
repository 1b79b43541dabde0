#include "contexts/nested_sweep.hpp"

#include <limits>

namespace routestats {
namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

}  // namespace

void NestedSweep::plan(std::span<const ContextTree::Interval> intervals) {
  const auto count = static_cast<std::uint32_t>(intervals.size());
  const auto size = [&](std::uint32_t i) { return intervals[i].high - intervals[i].low; };
  heavy_.assign(count, kNone);
  steps.clear();
  steps.reserve(count);
  // Inner intervals come before the outer one, so those that lie in the next interval are on top of
  // the stack.
  stack_.clear();
  for (std::uint32_t i = 0; i < count; ++i) {
    while (!stack_.empty() && intervals[stack_.back()].low >= intervals[i].low) {
      const std::uint32_t child = stack_.back();
      stack_.pop_back();
      if (heavy_[i] == kNone || size(child) > size(heavy_[i])) heavy_[i] = child;
    }
    stack_.push_back(i);
  }
  // Each chain goes from a smallest interval up to one that is not the largest child of another.
  // Chains do not share the table, so their order is free; the order of their tops keeps memory
  // accesses close together.
  std::vector<bool> is_heavy(count, false);
  for (const std::uint32_t child : heavy_) {
    if (child != kNone) is_heavy[child] = true;
  }
  for (std::uint32_t top = 0; top < count; ++top) {
    if (is_heavy[top]) continue;
    chain_.clear();
    for (std::uint32_t i = top; i != kNone; i = heavy_[i]) chain_.push_back(i);
    for (std::size_t k = chain_.size(); k-- > 0;) {
      const std::uint32_t i = chain_[k];
      steps.push_back({intervals[i].low, intervals[i].high, i, k + 1 == chain_.size(), k == 0});
    }
  }
}

}  // namespace routestats
