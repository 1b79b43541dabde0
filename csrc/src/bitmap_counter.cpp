#include "bitmap_counter.hpp"

#include <algorithm>

#include "routestats/workers.hpp"

namespace routestats {

BitmapCounter::BitmapCounter(const CountJob& job, std::size_t max_tokens, Isa isa)
    : job_(job),
      kernel_(and_popcount(isa)),
      columns_(job.layers, job.experts, max_tokens),
      load_(job.layers * job.experts) {}

bool BitmapCounter::add(const ExpertView& block) {
  columns_.fill(block, job_.threads);
  count_load();
  std::uint64_t total = 0;
  for (const std::uint64_t n : load_) total += n;
  if (total != block.tokens * job_.layers * job_.slots) return false;

  for (std::size_t i = 0; i < load_.size(); ++i) job_.tables.expert[i] += load_[i];
  run_workers(job_.pairs.size(), job_.threads, [&](ItemQueue& queue) {
    while (const auto pair = queue.next()) {
      const auto [source, target] = job_.pairs[*pair];
      kernel_(columns_.layer(source), columns_.layer(target), job_.experts, columns_.words(),
              job_.tile(*pair));
    }
  });
  return true;
}

void BitmapCounter::count_load() {
  std::fill(load_.begin(), load_.end(), 0);
  for (std::size_t l = 0; l < job_.layers; ++l) {
    for (std::size_t e = 0; e < job_.experts; ++e) {
      const std::uint64_t* column = columns_.column(l, e);
      kernel_(column, column, 1, columns_.words(), &load_[l * job_.experts + e]);
    }
  }
}

}  // namespace routestats
