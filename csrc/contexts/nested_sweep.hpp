#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "contexts/context_tree.hpp"

namespace routestats {

// In which order to visit nested intervals so that one table of counters serves them all.
//
// Every interval is grown from its largest child by adding the places to the left and right of it;
// a chain of such steps starts and ends with an empty table. A place is added once for each
// ancestor of which it is not in the largest child: at most log2(places) times.
struct NestedSweep {
  struct Step {
    std::uint32_t low;
    std::uint32_t high;
    std::uint32_t interval;
    bool first;  // nothing is counted yet
    bool last;   // empty the table afterwards
  };
  std::vector<Step> steps;

  // `intervals` as of ContextTree.
  void plan(std::span<const ContextTree::Interval> intervals);

 private:
  std::vector<std::uint32_t> heavy_;  // by interval: its largest child
  std::vector<std::uint32_t> stack_, chain_;
};

}  // namespace routestats
