#include "pairs/bitmap_counter.hpp"

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "base/workers.hpp"
#include "bits/bit_columns.hpp"

namespace routestats {
namespace {

using Counts = std::vector<std::uint64_t>;

void add_to(std::uint64_t* total, const Counts& part) {
  for (std::size_t i = 0; i < part.size(); ++i) total[i] += part[i];
}

}  // namespace

BitmapCounter::BitmapCounter(const CountJob& job, Isa isa)
    : job_(job), kernel_(and_popcount(isa)) {}

std::vector<TokenRange> BitmapCounter::add(const ExpertView& view, std::size_t block) {
  const std::size_t experts = job_.experts;
  std::vector<TokenRange> left;
  std::mutex tables;
  run_workers((view.tokens + block - 1) / block, job_.threads, [&](ItemQueue& queue) {
    BitColumns columns(job_.layers, experts, block);
    Counts loads(job_.layers * experts);
    Counts block_loads(loads.size());
    Counts pairs(job_.pairs.size() * job_.cells());
    while (const auto item = queue.next()) {
      const std::size_t first = *item * block;
      const std::size_t tokens = std::min(block, view.tokens - first);
      columns.fill(view.tokens_from(first, tokens));
      std::fill(block_loads.begin(), block_loads.end(), 0);
      for (std::size_t c = 0; c < block_loads.size(); ++c) {
        const std::uint64_t* column = columns.column(c / experts, c % experts);
        kernel_(column, column, 1, columns.words(), &block_loads[c]);
      }
      std::uint64_t total = 0;
      for (const std::uint64_t n : block_loads) total += n;
      if (total != tokens * job_.layers * job_.slots) {
        const std::lock_guard lock(tables);
        left.push_back({first, tokens});
        continue;
      }
      add_to(loads.data(), block_loads);
      for (std::size_t p = 0; p < job_.pairs.size(); ++p) {
        const auto [source, target] = job_.pairs[p];
        kernel_(columns.layer(source), columns.layer(target), experts, columns.words(),
                &pairs[p * job_.cells()]);
      }
    }
    const std::lock_guard lock(tables);
    add_to(job_.tables.expert, loads);
    add_to(job_.tables.pairs, pairs);
  });
  return joined(std::move(left));
}

}  // namespace routestats
