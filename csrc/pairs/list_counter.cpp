#include "pairs/list_counter.hpp"

#include <algorithm>

#include "base/workers.hpp"

namespace routestats {
namespace {

// Tables are written once per segment. With all pairs of many experts the tables are far larger
// than any cache, so a segment is as long as memory allows. With few pairs the ids of a segment
// should stay in a cache, because they are read once for each group of target layers.
constexpr std::size_t kListBytes = std::size_t{384} << 20;
constexpr std::size_t kFewPairsSegmentTokens = 65'536;
constexpr std::size_t kFewPairsPerLayer = 4;
// Source layers that share the rows of a block while these are in the second-level cache. More
// source layers write the rows less often; fewer give more items to the threads.
constexpr std::size_t kItemSources = 16;
static_assert(kMostSegmentTokens < (std::size_t{1} << (kMostPlanes - 2)));  // padding included

}  // namespace

std::size_t list_segment_tokens(const CountJob& job) {
  const std::size_t tokens = kListBytes / (job.layers * job.slots * sizeof(std::uint16_t));
  const bool few = job.pairs.size() < kFewPairsPerLayer * job.layers;
  return std::clamp(tokens / kRowBlockTokens * kRowBlockTokens, kRowBlockTokens,
                    few ? kFewPairsSegmentTokens : kMostSegmentTokens);
}

ListCounter::ListCounter(const CountJob& job, std::size_t max_tokens, Isa isa)
    : job_(job), sums_(row_sums(isa)), lists_(job.layers, job.experts, job.slots, max_tokens) {
  std::map<std::size_t, Group> groups;
  for (std::size_t p = 0; p < job.pairs.size(); ++p) {
    const auto [source, target] = job.pairs[p];
    const std::size_t begin = target * job.experts;
    const std::size_t end = begin + job.experts;
    for (std::size_t column = begin; column < end;) {
      const std::size_t first = column / kRowColumns * kRowColumns;
      const std::size_t count = std::min(end, first + kRowColumns) - column;
      Group& group = groups[first];
      group.first_column = first;
      group.sources[source].push_back({p, column - begin, column - first, count});
      column += count;
    }
  }
  for (auto& [first, group] : groups) groups_.push_back(std::move(group));
  make_items();
}

// The groups of late layers have the most sources. They come first, so that all threads end at
// about the same time.
void ListCounter::make_items() {
  const std::size_t wanted = job_.threads > 1 ? 4 * std::size_t{job_.threads} : 1;
  const std::size_t cuts =
      groups_.empty() ? 1 : std::max<std::size_t>(1, wanted / (2 * groups_.size()));
  const std::size_t step = (job_.experts + cuts - 1) / cuts;
  for (auto group = groups_.rbegin(); group != groups_.rend(); ++group) {
    std::vector<std::pair<std::size_t, const std::vector<Part>*>> sources;
    for (const auto& [layer, parts] : group->sources) sources.emplace_back(layer, &parts);
    const std::size_t tiles = (sources.size() + kItemSources - 1) / kItemSources;
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      const auto at = [&](std::size_t i) {
        return sources.begin() + static_cast<std::ptrdiff_t>(i * sources.size() / tiles);
      };
      for (std::size_t first = 0; first < job_.experts; first += step) {
        items_.push_back({group->first_column,
                          {at(tile), at(tile + 1)},
                          first,
                          std::min(job_.experts, first + step)});
      }
    }
  }
}

bool ListCounter::add(const ExpertView& segment) {
  if (!lists_.fill(segment, job_.threads)) return false;
  for (std::size_t l = 0; l < job_.layers; ++l) lists_.add_load(l, job_.load(l));
  const std::size_t most = segment.tokens + lists_.blocks() * kListStep;
  const std::size_t stride = plane_count(most);
  run_workers(items_.size(), job_.threads, [&](ItemQueue& queue) {
    Worker worker{BitRows(job_.experts), stride, {}, {}};
    while (const auto i = queue.next()) {
      sum(segment, items_[*i], worker);
      add_counts(items_[*i], worker);
    }
  });
  return true;
}

void ListCounter::sum(const ExpertView& segment, const Item& item, Worker& worker) const {
  const std::size_t experts = item.last_expert - item.first_expert;
  worker.planes.assign(item.sources.size() * experts * worker.stride, BitRow{});
  worker.summed.assign(item.sources.size() * experts, 0);
  for (std::size_t b = 0; b < lists_.blocks(); ++b) {
    const std::size_t first = b * kRowBlockTokens;
    worker.rows.fill(segment.tokens_from(first, std::min(kRowBlockTokens, segment.tokens - first)),
                     item.first_column);
    std::size_t place = 0;
    for (const auto& [layer, parts] : item.sources) {
      for (std::size_t e = item.first_expert; e < item.last_expert; ++e, ++place) {
        const auto list = lists_.list(b, layer, e);
        if (list.empty()) continue;
        worker.summed[place] += list.size();
        sums_.add(worker.rows.words(), list.data(), list.size(),
                  worker.planes[place * worker.stride].words, plane_count(worker.summed[place]));
      }
    }
  }
}

void ListCounter::add_counts(const Item& item, const Worker& worker) const {
  std::uint32_t counts[kRowColumns];
  std::size_t place = 0;
  for (const auto& [layer, parts] : item.sources) {
    for (std::size_t e = item.first_expert; e < item.last_expert; ++e, ++place) {
      if (worker.summed[place] == 0) continue;
      sums_.expand(worker.planes[place * worker.stride].words, plane_count(worker.summed[place]),
                   counts);
      for (const Part& part : *parts) {
        std::uint64_t* cells = job_.tile(part.pair) + e * job_.experts + part.first_expert;
        for (std::size_t c = 0; c < part.count; ++c) cells[c] += counts[part.column + c];
      }
    }
  }
}

}  // namespace routestats
