#include "prediction/rank_hits.hpp"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>

#include "base/workers.hpp"
#include "prediction/rank_tokens.hpp"

namespace routestats {
namespace {

// Few enough tokens that the ranks of a run stay in a cache, and enough that the cost of claiming a
// run vanishes.
constexpr std::size_t kRunTokens = 4096;

template <class Id>
void check_below(const char* name, const Id* values, std::size_t count, std::size_t limit) {
  if (count == 0) return;
  const Id largest = *std::max_element(values, values + count);
  if (largest < limit) return;
  throw std::out_of_range(std::string(name) + ": expected values below " + std::to_string(limit) +
                          ", got " + std::to_string(largest));
}

// Adds one token's hits to `counts`, in the order that add_rank_hits documents.
void score(const std::uint32_t* ranks, std::size_t slots, const std::vector<std::uint32_t>& best,
           std::int64_t* counts) {
  const auto below = [&](std::size_t limit) {
    std::int64_t found = 0;
    for (std::size_t k = 0; k < slots; ++k) found += ranks[k] < limit ? 1 : 0;
    return found;
  };
  counts[0] += ranks[0] == 0 ? 1 : 0;
  for (std::size_t i = 0; i < best.size(); ++i) counts[1 + i] += below(best[i]);
  counts[1 + best.size()] += below(slots) == static_cast<std::int64_t>(slots) ? 1 : 0;
}

}  // namespace

void add_rank_hits(const ScoredTokens& scored, const std::vector<std::uint32_t>& best,
                   std::int64_t* hits, unsigned threads, Isa isa) {
  check_below("group_of", scored.group_of, scored.tokens, scored.groups);
  check_below("chosen", scored.chosen, scored.targets * scored.tokens * scored.slots,
              scored.experts);
  const std::size_t row_targets = scored.rows_are_shared ? 1 : scored.targets;
  check_below("rows", scored.rows, row_targets * scored.tokens * scored.picks, scored.table_rows);
  if (scored.slots == 0) throw std::invalid_argument("chosen: expected at least 1 slot");

  const RankTokens rank = rank_tokens(isa, scored.experts);
  const std::size_t width = 2 + best.size();
  const std::size_t runs = (scored.tokens + kRunTokens - 1) / kRunTokens;
  std::mutex hits_mutex;
  run_workers(scored.targets * runs, threads, [&](ItemQueue& queue) {
    std::vector<std::uint32_t> ranks(kRunTokens * scored.slots);
    std::vector<std::int64_t> counts(width);
    std::vector<double> keys((scored.experts + kMaxLanes - 1) / kMaxLanes * kMaxLanes);
    std::vector<const double*> picked(scored.picks);
    while (const auto item = queue.next()) {
      const std::size_t target = *item / runs;
      const std::size_t first = *item % runs * kRunTokens;
      const std::size_t tokens = std::min(kRunTokens, scored.tokens - first);
      const std::size_t rows_of_target = scored.rows_are_shared ? 0 : target * scored.tokens;
      rank({scored.experts, scored.tables + target * scored.table_rows * scored.experts,
            scored.base + target * scored.experts, tokens, scored.picks,
            scored.rows + (rows_of_target + first) * scored.picks, scored.slots,
            scored.chosen + (target * scored.tokens + first) * scored.slots, keys.data(),
            picked.data()},
           ranks.data());
      const std::uint32_t* group_of = scored.group_of + first;
      for (std::size_t t = 0; t < tokens;) {
        const std::uint32_t group = group_of[t];
        std::fill(counts.begin(), counts.end(), 0);
        for (; t < tokens && group_of[t] == group; ++t) {
          score(ranks.data() + t * scored.slots, scored.slots, best, counts.data());
        }
        const std::lock_guard lock(hits_mutex);
        std::int64_t* cells = hits + (target * scored.groups + group) * width;
        for (std::size_t i = 0; i < width; ++i) cells[i] += counts[i];
      }
    }
  });
}

}  // namespace routestats
