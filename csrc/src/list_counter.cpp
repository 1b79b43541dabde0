#include "list_counter.hpp"

#include <algorithm>
#include <bit>

#include "routestats/workers.hpp"

namespace routestats {
namespace {

// Tables are written once per segment, so a segment is as long as memory allows: the tables of many
// experts are far larger than any cache.
constexpr std::size_t kListBytes = std::size_t{384} << 20;
static_assert(kMostSegmentTokens < (std::size_t{1} << (kMostPlanes - 2)));  // padding included

}  // namespace

std::size_t list_segment_tokens(std::size_t layers, std::size_t slots) {
  const std::size_t tokens = kListBytes / (layers * slots * sizeof(std::uint16_t));
  return std::clamp(tokens / kRowBlockTokens * kRowBlockTokens, kRowBlockTokens,
                    kMostSegmentTokens);
}

ListCounter::ListCounter(const CountJob& job, std::size_t max_tokens, Isa isa)
    : job_(job),
      sums_(row_sums(isa)),
      lists_(job.layers, job.experts, job.slots, max_tokens),
      rows_(job.experts, max_tokens) {
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
}

bool ListCounter::add(const ExpertView& segment) {
  if (!lists_.fill(segment, job_.threads)) return false;
  for (std::size_t l = 0; l < job_.layers; ++l) lists_.add_load(l, job_.load(l));
  for (const Group& group : groups_) {
    rows_.fill(segment, group.first_column, job_.threads);
    add_group(group, segment.tokens);
  }
  return true;
}

void ListCounter::add_group(const Group& group, std::size_t tokens) {
  struct Item {
    std::size_t layer;
    const std::vector<Part>* parts;
    std::size_t first;
    std::size_t last;
  };
  // Few sources are cut into more items than threads, so that all threads end at about one time.
  const std::size_t wanted = 4 * std::max(job_.threads, 1u);
  const std::size_t cuts = std::max<std::size_t>(1, wanted / group.sources.size());
  const std::size_t step = (job_.experts + cuts - 1) / cuts;
  std::vector<Item> items;
  for (const auto& [layer, parts] : group.sources) {
    for (std::size_t first = 0; first < job_.experts; first += step) {
      items.push_back({layer, &parts, first, std::min(job_.experts, first + step)});
    }
  }
  const std::size_t most = tokens + lists_.blocks() * kListStep;
  const std::size_t plane_count =
      std::max<std::size_t>(kFewestPlanes, static_cast<std::size_t>(std::bit_width(most)));
  run_workers(items.size(), job_.threads, [&](ItemQueue& queue) {
    Counters counters{plane_count, std::vector<BitRow>(step * plane_count)};
    while (const auto i = queue.next()) {
      const Item& item = items[*i];
      std::fill(counters.planes.begin(), counters.planes.end(), BitRow{});
      add_experts(item.layer, *item.parts, item.first, item.last, counters);
    }
  });
}

void ListCounter::add_experts(std::size_t layer, const std::vector<Part>& parts, std::size_t first,
                              std::size_t last, Counters& counters) {
  std::vector<std::size_t> rows(last - first);  // that were summed so far, padding included
  const auto planes = [&](std::size_t i) { return &counters.planes[i * counters.stride]; };
  const auto plane_count = [&](std::size_t i) {
    return std::max<std::size_t>(kFewestPlanes, static_cast<std::size_t>(std::bit_width(rows[i])));
  };
  for (std::size_t b = 0; b < lists_.blocks(); ++b) {
    for (std::size_t i = 0; i < last - first; ++i) {
      const auto list = lists_.list(b, layer, first + i);
      if (list.empty()) continue;
      rows[i] += list.size();
      sums_.add(rows_.block(b), list.data(), list.size(), planes(i), plane_count(i));
    }
  }
  std::uint32_t counts[kRowColumns];
  for (std::size_t i = 0; i < last - first; ++i) {
    if (rows[i] == 0) continue;
    sums_.expand(planes(i), plane_count(i), counts);
    for (const Part& part : parts) {
      std::uint64_t* cells = job_.tile(part.pair) + (first + i) * job_.experts + part.first_expert;
      for (std::size_t c = 0; c < part.count; ++c) cells[c] += counts[part.column + c];
    }
  }
}

}  // namespace routestats
