#include "routestats/path_counts.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <string>

#include "routestats/workers.hpp"

namespace routestats {
namespace {

// Partitions are many, so that threads can share them evenly and one table's slots fit the
// second-level cache, and fixed, so that tables of different counts correspond.
constexpr unsigned kPartitionBits = 6;
constexpr std::size_t kPartitions = std::size_t{1} << kPartitionBits;
// A slice's ids and keys stay in the second-level cache between checking, packing and hashing.
constexpr std::size_t kSliceTokens = 512;
constexpr std::size_t kBlockBytes = 8u << 20;
constexpr std::size_t kMaxBlockTokens = 131'072;
constexpr std::uint64_t kSmallCount = 4096;

std::size_t partition_of(std::uint64_t hash) { return hash >> (64 - kPartitionBits); }

std::size_t block_tokens(std::size_t words) {
  const std::size_t fitting = kBlockBytes / (words * sizeof(std::uint64_t));
  return std::clamp(fitting / kSliceTokens * kSliceTokens, 8 * kSliceTokens, kMaxBlockTokens);
}

ExpertView window_of(ExpertView view, const PathShape& shape) {
  view.data += static_cast<std::ptrdiff_t>(shape.start) * view.layer_stride;
  view.layers = shape.length;
  return view;
}

}  // namespace

PathCounts::PathCounts(const PathShape& shape, Isa isa)
    : shape_(shape),
      codec_(shape.kind, shape.experts, shape.slots, shape.length, isa),
      arena_(std::make_unique<KeyArena>()) {
  tables_.reserve(kPartitions);
  for (std::size_t i = 0; i < kPartitions; ++i) tables_.emplace_back(codec_.words(), *arena_);
}

void PathCounts::add(const ExpertView& view, std::uint64_t first_token, unsigned threads) {
  if (view.slots != shape_.slots || view.layers < shape_.start ||
      view.layers - shape_.start < shape_.length) {
    throw std::invalid_argument("experts: of other layers or slots than the paths");
  }
  const std::size_t step = block_tokens(codec_.words());
  for (std::size_t first = 0; first < view.tokens; first += step) {
    const ExpertView block = view.tokens_from(first, std::min(step, view.tokens - first));
    pack(block, first_token + first, threads);
    const std::size_t slices = (block.tokens + kSliceTokens - 1) / kSliceTokens;
    run_workers(kPartitions, threads, [&](ItemQueue& queue) {
      std::vector<KeyRef> refs;
      while (const auto part = queue.next()) {
        refs.clear();
        for (std::size_t s = 0; s < slices; ++s) {
          const std::uint16_t* ends = ends_ + s * (kPartitions + 1) + *part;
          for (std::size_t i = ends[0]; i < ends[1]; ++i) {
            const std::size_t token = s * kSliceTokens + order_[s * kSliceTokens + i];
            refs.push_back({keys_ + token * codec_.words(), fingerprints_[token], 1});
          }
        }
        tables_[*part].add(refs);
      }
    });
    tokens_ += block.tokens;
  }
}

template <class Item>
Item* PathCounts::scratch(std::size_t items) {
  const std::size_t words =
      (items * sizeof(Item) + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t);
  return reinterpret_cast<Item*>(arena_->allocate(words));
}

void PathCounts::pack(const ExpertView& block, std::uint64_t first_token, unsigned threads) {
  const std::size_t slices = (block.tokens + kSliceTokens - 1) / kSliceTokens;
  if (block_slices_ < slices) {
    // Twice as many at least, because the arena takes nothing back.
    const std::size_t most = block_tokens(codec_.words()) / kSliceTokens;
    block_slices_ = std::max(slices, std::min(2 * block_slices_, most));
    const std::size_t tokens = block_slices_ * kSliceTokens;
    keys_ = arena_->allocate(tokens * codec_.words());
    fingerprints_ = scratch<std::uint32_t>(tokens);
    order_ = scratch<std::uint16_t>(tokens);
    ends_ = scratch<std::uint16_t>(block_slices_ * (kPartitions + 1));
  }
  run_workers(slices, threads, [&](ItemQueue& queue) {
    while (const auto slice = queue.next()) {
      const std::size_t first = *slice * kSliceTokens;
      pack_slice(block.tokens_from(first, std::min(kSliceTokens, block.tokens - first)),
                 first_token + first, *slice);
    }
  });
}

void PathCounts::pack_slice(const ExpertView& slice, std::uint64_t first_token,
                            std::size_t number) {
  std::uint64_t* keys = keys_ + number * kSliceTokens * codec_.words();
  if (!experts_below(slice, shape_.experts) || !codec_.pack(window_of(slice, shape_), keys)) {
    report(slice, first_token);
  }
  // A counting sort of the slice's tokens by partition.
  std::array<std::uint8_t, kSliceTokens> partition;
  std::array<std::uint16_t, kPartitions + 1> place{};
  std::uint32_t* fingerprints = fingerprints_ + number * kSliceTokens;
  for (std::size_t t = 0; t < slice.tokens; ++t) {
    const std::uint64_t hash = hash_key(keys + t * codec_.words(), codec_.words());
    fingerprints[t] = static_cast<std::uint32_t>(hash);
    partition[t] = static_cast<std::uint8_t>(partition_of(hash));
    ++place[partition[t] + 1u];
  }
  for (std::size_t p = 0; p < kPartitions; ++p) {
    place[p + 1] = static_cast<std::uint16_t>(place[p + 1] + place[p]);
  }
  std::copy(place.begin(), place.end(), ends_ + number * (kPartitions + 1));
  std::uint16_t* order = order_ + number * kSliceTokens;
  for (std::size_t t = 0; t < slice.tokens; ++t) {
    order[place[partition[t]]++] = static_cast<std::uint16_t>(t);
  }
}

void PathCounts::report(const ExpertView& slice, std::uint64_t first_token) const {
  check_experts(slice, shape_.experts, first_token, 1);
  const auto found = first_repeated(window_of(slice, shape_));
  if (!found) throw std::logic_error("experts changed while they were counted");
  const std::string place = "experts[" + std::to_string(first_token + found->token) + ", " +
                            std::to_string(shape_.start + found->layer) + ", ";
  throw ExpertRepeated(place + std::to_string(found->slot) + "] = " + std::to_string(found->id) +
                       ", which is in slot " + std::to_string(found->earlier_slot) +
                       " already; a set needs distinct experts");
}

void PathCounts::merge(const PathCounts& other, unsigned threads) {
  if (other.shape_ != shape_) throw std::invalid_argument("paths: expected the same shape");
  run_workers(kPartitions, threads, [&](ItemQueue& queue) {
    std::vector<KeyRef> refs;
    while (const auto part = queue.next()) {
      const PathTable& more = other.tables_[*part];
      refs.clear();
      for (std::size_t i = 0; i < more.size(); ++i) {
        const std::uint64_t* key = more.key(i);
        const auto fingerprint = static_cast<std::uint32_t>(hash_key(key, codec_.words()));
        refs.push_back({key, fingerprint, more.count(i)});
      }
      tables_[*part].add(refs);
    }
  });
  tokens_ += other.tokens_;
}

std::size_t PathCounts::distinct() const {
  std::size_t sum = 0;
  for (const PathTable& table : tables_) sum += table.size();
  return sum;
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> PathCounts::frequencies() const {
  std::vector<std::uint64_t> small(kSmallCount);
  std::map<std::uint64_t, std::uint64_t> large;
  for (const PathTable& table : tables_) {
    for (std::size_t i = 0; i < table.size(); ++i) {
      const std::uint64_t count = table.count(i);
      ++(count < kSmallCount ? small[count] : large[count]);
    }
  }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> result(large.rbegin(), large.rend());
  for (std::uint64_t count = kSmallCount - 1; count > 0; --count) {
    if (small[count] > 0) result.emplace_back(count, small[count]);
  }
  return result;
}

std::vector<PathCounts::Entry> PathCounts::most_frequent(std::size_t number) const {
  if (number == 0) return {};
  // The least count that is still among them: all paths above it are, of those at it some.
  std::uint64_t least = 1;
  std::uint64_t above = 0;
  for (const auto& [count, paths] : frequencies()) {
    least = count;
    if (above + paths >= number) break;
    above += paths;
  }
  const std::size_t words = codec_.words();
  const auto comes_first = [words](const Entry& a, const Entry& b) {
    if (a.count != b.count) return a.count > b.count;
    return std::lexicographical_compare(a.key, a.key + words, b.key, b.key + words);
  };
  std::vector<Entry> best;  // a heap, the last of them at its root
  for (const PathTable& table : tables_) {
    for (std::size_t i = 0; i < table.size(); ++i) {
      if (table.count(i) < least) continue;
      const Entry entry{table.count(i), table.key(i)};
      if (best.size() == number) {
        if (!comes_first(entry, best.front())) continue;
        std::pop_heap(best.begin(), best.end(), comes_first);
        best.pop_back();
      }
      best.push_back(entry);
      std::push_heap(best.begin(), best.end(), comes_first);
    }
  }
  std::sort_heap(best.begin(), best.end(), comes_first);
  return best;
}

}  // namespace routestats
