#include "pairs/direct_counter.hpp"

#include <algorithm>
#include <vector>

#include "base/workers.hpp"
#include "pairs/direct_tiles.hpp"

namespace routestats {

DirectCounter::DirectCounter(const CountJob& job, std::size_t batch_tokens)
    : job_(job), batch_tokens_(batch_tokens), ids_(job.layers, job.slots, batch_tokens) {}

void DirectCounter::add(const ExpertView& view, std::span<const TokenRange> tokens,
                        std::size_t first_layer, std::size_t layers) {
  for (const auto& batch : batches_of(tokens, batch_tokens_)) {
    add_batch(view, batch, first_layer, layers);
  }
}

void DirectCounter::add_batch(const ExpertView& view, std::span<const TokenRange> tokens,
                              std::size_t first_layer, std::size_t layers) {
  std::vector<std::size_t> wanted;  // pairs
  std::size_t first_read = first_layer;
  std::size_t last_read = first_layer + layers;
  for (std::size_t p = 0; p < job_.pairs.size(); ++p) {
    const auto [source, target] = job_.pairs[p];
    if (source < first_layer || source >= first_layer + layers) continue;
    wanted.push_back(p);
    first_read = std::min<std::size_t>(first_read, target);
    last_read = std::max<std::size_t>(last_read, target + 1);
  }
  ids_.fill(view.layers_from(first_read, last_read - first_read), tokens, job_.threads);
  run_workers(layers, job_.threads, [&](ItemQueue& queue) {
    while (const auto item = queue.next()) {
      const std::uint16_t* id = ids_.layer(first_layer + *item - first_read);
      std::uint64_t* load = job_.load(first_layer + *item);
      for (std::size_t i = 0; i < ids_.tokens() * ids_.slots(); ++i) ++load[id[i]];
    }
  });
  run_workers(wanted.size(), job_.threads, [&](ItemQueue& queue) {
    std::vector<std::uint32_t> narrow(job_.cells());
    while (const auto item = queue.next()) {
      const auto [source, target] = job_.pairs[wanted[*item]];
      std::fill(narrow.begin(), narrow.end(), 0u);
      add_direct_tile(ids_, source - first_read, target - first_read, job_.experts, narrow.data());
      std::uint64_t* tile = job_.tile(wanted[*item]);
      for (std::size_t i = 0; i < narrow.size(); ++i) tile[i] += narrow[i];
    }
  });
}

}  // namespace routestats
