#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/expert_view.hpp"

namespace routestats {

// Runs of consecutive positions; each run is of one request.
struct TokenRuns {
  std::span<const std::int64_t> tokens;  // tokens of the view, run after run
  std::span<const std::int64_t> starts;  // [runs + 1]: run r is tokens[starts[r] .. starts[r + 1])
  std::span<const std::int64_t> groups;  // [runs]: to which tables a run adds
};

// The tables that counts are added to: row-major, owned by the caller.
struct SegmentTables {
  std::size_t groups;
  std::uint64_t*
      uses;  // [groups, layers, m + 1]: (window, expert) where c of the m tokens chose it
  std::uint64_t* hits;  // [groups, layers]: choices that were in the cache
};

// Slides a window of m tokens over every run, and a cache of `capacity` experts per layer that is
// empty when a run starts. The experts of a token enter the cache. Then the experts that the next m
// tokens of the run use least leave it, the highest id first among equals, until `capacity` are
// left. Runs shorter than m have no window. One thread takes one layer at a time.
//
// Throws before anything is added: ExpertOutOfRange for an id in any slot of the view, and
// std::invalid_argument for runs that do not fit it. For a token that names an expert twice at one
// layer it throws std::invalid_argument and leaves the tables in an unspecified state.
void count_segments(const ExpertView& view, std::size_t experts, const TokenRuns& runs,
                    std::size_t m, std::size_t capacity, const SegmentTables& tables,
                    unsigned threads);

}  // namespace routestats
