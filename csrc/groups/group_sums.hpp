#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/expert_view.hpp"
#include "pairs/pair_counts.hpp"

namespace routestats {

// Rows of a trace in groups, as entries: group g is entries starts[g] .. starts[g + 1] - 1, and at
// layer l entry i is row rows[l * layer_stride + i].
struct GroupedRows {
  const std::uint32_t* rows;
  std::size_t layer_stride;               // 0: the same rows at every layer
  std::span<const std::uint64_t> starts;  // ascending, from 0 to the number of entries

  std::size_t groups() const { return starts.size() - 1; }
};

// Counts of at least the entries of all groups; row-major.
struct WholeCounts {
  const std::uint64_t* expert;  // [layers, experts]
  const std::uint64_t* pairs;   // [pairs, experts, experts]
};

// With f(n) = n log2 n: the change of the sum of f over all cells when the entries of a group are
// taken out of the counts (mostly a loss). Row-major, owned by the caller.
struct SumChanges {
  double* pairs;   // [groups, pairs]: over the cells of the layer pair's table
  double* layers;  // [groups, layers]: over the margin of any table of that layer, i.e. over
                   // counted_slots times the counts of its experts
};

// Counts the entries once and computes one term for each cell and group. All sums have a fixed
// order, so the result does not depend on `threads`. Memory: a block of cells for each thread,
// whatever the number of pairs. Throws std::invalid_argument for rows, starts or counts that do not
// fit together, and the errors of count_pairs.
void sum_changes_without_groups(const ExpertView& view, std::size_t experts,
                                std::span<const LayerPair> pairs, const GroupedRows& grouped,
                                const WholeCounts& whole, const SumChanges& changes,
                                const CountOptions& options);

}  // namespace routestats
