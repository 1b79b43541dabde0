#include "direct_counter.hpp"

#include <algorithm>
#include <vector>

#include "routestats/direct_tiles.hpp"
#include "routestats/workers.hpp"

namespace routestats {

DirectCounter::DirectCounter(const CountJob& job, std::size_t max_tokens)
    : job_(job), ids_(job.layers, job.slots, max_tokens) {}

void DirectCounter::add(const ExpertView& block, std::size_t first_layer, std::size_t layers) {
  ids_.fill(block, job_.threads);
  run_workers(layers, job_.threads, [&](ItemQueue& queue) {
    while (const auto item = queue.next()) {
      const std::uint16_t* id = ids_.layer(first_layer + *item);
      std::uint64_t* load = job_.load(first_layer + *item);
      for (std::size_t i = 0; i < ids_.tokens() * ids_.slots(); ++i) ++load[id[i]];
    }
  });
  run_workers(job_.pairs.size(), job_.threads, [&](ItemQueue& queue) {
    std::vector<std::uint32_t> narrow(job_.cells());
    while (const auto pair = queue.next()) {
      const auto [source, target] = job_.pairs[*pair];
      if (source < first_layer || source >= first_layer + layers) continue;
      std::fill(narrow.begin(), narrow.end(), 0u);
      add_direct_tile(ids_, source, target, job_.experts, narrow.data());
      std::uint64_t* tile = job_.tile(*pair);
      for (std::size_t i = 0; i < narrow.size(); ++i) tile[i] += narrow[i];
    }
  });
}

}  // namespace routestats
