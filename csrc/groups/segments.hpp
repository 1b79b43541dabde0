#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/expert_view.hpp"

namespace routestats {

// Runs of consecutive positions of one request each.
struct TokenRuns {
  std::span<const std::int64_t> tokens;  // tokens of the view, run after run
  std::span<const std::int64_t> starts;  // [runs + 1]: run r is tokens[starts[r] .. starts[r + 1])
  std::span<const std::int64_t> groups;  // [runs]: whose tables a run adds to
};

// What is added to, row-major and owned by the caller.
struct SegmentTables {
  std::size_t groups;
  std::uint64_t*
      uses;  // [groups, layers, m + 1]: (window, expert) where c of the m tokens chose it
  std::uint64_t* hits;  // [groups, layers]: choices that were in the cache
};

// Slides a window of m tokens over every run, and a cache of `capacity` experts per layer, which
// starts each run empty. After a token its experts are in the cache; then those used least in the
// run's next m tokens leave, the highest id first among equals, until `capacity` are left. Runs
// shorter than m have no window. One thread takes one layer at a time.
//
// Throws, before anything is added, ExpertOutOfRange for an id in any slot of the view and
// std::invalid_argument for runs that do not fit it. Throws std::invalid_argument, with the tables
// in an unspecified state, for a token that names an expert twice at one layer.
void count_segments(const ExpertView& view, std::size_t experts, const TokenRuns& runs,
                    std::size_t m, std::size_t capacity, const SegmentTables& tables,
                    unsigned threads);

}  // namespace routestats
