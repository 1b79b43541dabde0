#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "contexts/context_tree.hpp"

namespace routestats {

// The order in which nested intervals are visited, so that one table of counters serves all of
// them.
//
// Every interval grows from its largest child, by the places to the left and right of it. A chain
// of such steps starts and ends with an empty table. A place is added once for each of its
// intervals in whose largest child it does not lie: at most log2(places) times.
struct NestedSweep {
  struct Step {
    std::uint32_t low;
    std::uint32_t high;
    std::uint32_t interval;
    bool first;  // nothing is counted yet
    bool last;   // empty the table afterwards
  };
  std::vector<Step> steps;

  // `intervals` come from a ContextTree.
  void plan(std::span<const ContextTree::Interval> intervals);

 private:
  std::vector<std::uint32_t> heavy_;  // by interval: its largest child
  std::vector<std::uint32_t> stack_, chain_;
};

}  // namespace routestats
