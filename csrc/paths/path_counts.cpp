#include "paths/path_counts.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <map>
#include <numeric>
#include <string>

#include "base/workers.hpp"
#include "paths/key_words.hpp"

namespace routestats {
namespace {

// There are many partitions, so that threads share them evenly and the slots, counts and keys of
// one table fit the second-level cache. Their number is fixed, so that the tables of different
// counts correspond.
constexpr unsigned kPartitionBits = 6;
constexpr std::size_t kPartitions = std::size_t{1} << kPartitionBits;
// The ids and keys of a slice stay in the second-level cache while they are checked, packed and
// hashed.
constexpr std::size_t kSliceBytes = 256u << 10;
constexpr std::size_t kMinSliceTokens = 512;
constexpr std::size_t kMaxSliceTokens = 4096;
// Keys up to a cache line long are moved together by partition, so that they are read in order. To
// move longer ones would cost more than it saves.
constexpr std::size_t kMaxMovedWords = 8;
// Every block brings each table into the caches once, so larger blocks do this less often. Moved
// keys are read in order, from any memory. Other keys are read at random, so they should still be
// in the third-level cache.
constexpr std::size_t kMovedBlockBytes = 32u << 20;
constexpr std::size_t kBlockBytes = 8u << 20;
constexpr std::size_t kMaxBlockTokens = std::size_t{1} << 20;
// The most that a guess of new distinct keys may exceed the known ones.
constexpr std::size_t kMostGrowth = 4;
constexpr std::uint64_t kSmallCount = 4096;

std::size_t partition_of(std::uint64_t hash) { return hash >> (64 - kPartitionBits); }

std::size_t slice_tokens(std::size_t row_bytes, std::size_t words) {
  const std::size_t fitting = kSliceBytes / (row_bytes + words * sizeof(std::uint64_t));
  return std::bit_floor(std::clamp(fitting, kMinSliceTokens, kMaxSliceTokens));
}

std::size_t block_tokens(std::size_t words) {
  const std::size_t bytes = words <= kMaxMovedWords ? kMovedBlockBytes : kBlockBytes;
  const std::size_t fitting = std::bit_floor(bytes / (words * sizeof(std::uint64_t)));
  return std::clamp(fitting, kMaxSliceTokens, kMaxBlockTokens);
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
      arena_(std::make_unique<KeyArena>()),
      slice_tokens_(slice_tokens(shape.slots * shape.length, codec_.words())) {
  tables_.reserve(kPartitions);
  for (std::size_t i = 0; i < kPartitions; ++i) tables_.emplace_back(codec_.words(), *arena_);
}

void PathCounts::add(const ExpertView& view, std::uint64_t first_token, unsigned threads) {
  if (view.slots != shape_.slots || view.layers < shape_.start ||
      view.layers - shape_.start < shape_.length) {
    throw std::invalid_argument("experts: of other layers or slots than the paths");
  }
  if (view.tokens == 0) return;
  const std::size_t step = std::min(block_tokens(codec_.words()), view.tokens);
  make_room(step);
  const std::size_t blocks = (view.tokens + step - 1) / step;
  const auto block_at = [&](std::size_t i) {
    return view.tokens_from(i * step, std::min(step, view.tokens - i * step));
  };
  const auto slices_of = [&](std::size_t tokens) {
    return (tokens + slice_tokens_ - 1) / slice_tokens_;
  };
  // The number of keys that a table will need at the end, guessed from the tables that were filled
  // so far. Hashes spread the keys, so each table is a sample of all.
  std::atomic<std::size_t> expected{0};
  // Even phases pack a block, odd phases count it.
  const auto items = [&](std::size_t phase) -> std::size_t {
    if (phase / 2 == blocks) return 0;
    return phase % 2 == 0 ? slices_of(block_at(phase / 2).tokens) : kPartitions;
  };
  const auto team = static_cast<unsigned>(std::min<std::size_t>(threads, slices_of(step)));
  run_phases(team, items, [&](std::size_t phase, ItemQueue& queue) {
    const ExpertView block = block_at(phase / 2);
    const std::size_t first = phase / 2 * step;
    const bool packs = phase % 2 == 0 && codec_.words() <= kMaxMovedWords;
    const auto packed =
        std::make_unique_for_overwrite<std::uint64_t[]>(packs ? slice_tokens_ * codec_.words() : 0);
    while (const auto item = queue.next()) {
      if (phase % 2 == 0) {
        const std::size_t begin = *item * slice_tokens_;
        pack_slice(block.tokens_from(begin, std::min(slice_tokens_, block.tokens - begin)),
                   first_token + first + begin, *item, packed.get());
        continue;
      }
      PathTable& table = tables_[*item];
      const std::size_t before = table.size();
      table.reserve(expected.load(std::memory_order_relaxed));
      count_partition(*item, slices_of(block.tokens));
      // Block by block: the number is right even if a later block is refused.
      if (*item == 0) tokens_ += block.tokens;
      // New keys do not come faster later on.
      const double fresh = static_cast<double>(table.size() - before) /
                           static_cast<double>(block.tokens) *
                           static_cast<double>(view.tokens - first - block.tokens);
      const std::size_t guess =
          table.size() + std::min(static_cast<std::size_t>(fresh), kMostGrowth * table.size());
      std::size_t known = expected.load(std::memory_order_relaxed);
      while (known < guess && !expected.compare_exchange_weak(known, guess)) {
      }
    }
  });
}

// Adds the tokens of a packed block whose keys belong to one partition.
void PathCounts::count_partition(std::size_t part, std::size_t slices) {
  std::array<KeyRef, PathTable::kBatch> refs;
  std::size_t filled = 0;
  for (std::size_t s = 0; s < slices; ++s) {
    const std::uint16_t* ends = ends_ + s * (kPartitions + 1) + part;
    const std::size_t first = s * slice_tokens_;
    for (std::size_t i = first + ends[0]; i < first + ends[1]; ++i) {
      refs[filled++] = {keys_ + (first + places_[i]) * codec_.words(), fingerprints_[i], 1};
      if (filled == refs.size()) {
        tables_[part].add(refs);
        filled = 0;
      }
    }
  }
  tables_[part].add(std::span(refs).first(filled));
}

template <class Item>
Item* PathCounts::scratch(std::size_t items) {
  const std::size_t words =
      (items * sizeof(Item) + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t);
  return reinterpret_cast<Item*>(arena_->allocate(words));
}

void PathCounts::make_room(std::size_t tokens) {
  const std::size_t slices = (tokens + slice_tokens_ - 1) / slice_tokens_;
  if (slices <= block_slices_) return;
  // At least twice as many, because the arena takes nothing back.
  const std::size_t most = block_tokens(codec_.words()) / slice_tokens_;
  block_slices_ = std::max(slices, std::min(2 * block_slices_, most));
  const std::size_t room = block_slices_ * slice_tokens_;
  keys_ = arena_->allocate(room * codec_.words());
  fingerprints_ = scratch<std::uint32_t>(room);
  places_ = scratch<std::uint16_t>(room);
  ends_ = scratch<std::uint16_t>(block_slices_ * (kPartitions + 1));
}

void PathCounts::pack_slice(const ExpertView& slice, std::uint64_t first_token, std::size_t number,
                            std::uint64_t* packed) {
  const std::size_t words = codec_.words();
  const bool move = words <= kMaxMovedWords;
  std::uint64_t* keys = keys_ + number * slice_tokens_ * words;
  std::uint64_t* unordered = move ? packed : keys;
  if (!experts_below(slice, shape_.experts) || !codec_.pack(window_of(slice, shape_), unordered)) {
    report(slice, first_token);
  }
  // A counting sort of the tokens of a slice by partition.
  std::array<std::uint64_t, kMaxSliceTokens> hashes;
  std::array<std::uint16_t, kPartitions + 1> next{};
  const std::size_t tokens = slice.tokens;
  for (std::size_t t = 0; t < tokens; ++t) {
    // The machine cannot foresee the order of these writes.
    if (move) __builtin_prefetch(keys + t * words, 1);
    hashes[t] = hash_key(unordered + t * words, words);
    ++next[partition_of(hashes[t]) + 1];
  }
  for (std::size_t p = 0; p < kPartitions; ++p) {
    next[p + 1] = static_cast<std::uint16_t>(next[p + 1] + next[p]);
  }
  std::copy(next.begin(), next.end(), ends_ + number * (kPartitions + 1));
  std::uint16_t* places = places_ + number * slice_tokens_;
  std::uint32_t* fingerprints = fingerprints_ + number * slice_tokens_;
  if (!move) {
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::uint16_t to = next[partition_of(hashes[t])]++;
      fingerprints[to] = static_cast<std::uint32_t>(hashes[t]);
      places[to] = static_cast<std::uint16_t>(t);
    }
    return;
  }
  std::iota(places, places + tokens, std::uint16_t{0});
  with_key_words(words, [&](auto fixed) {
    const std::size_t width = fixed() == 0 ? words : fixed();
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::uint16_t to = next[partition_of(hashes[t])]++;
      fingerprints[to] = static_cast<std::uint32_t>(hashes[t]);
      for (std::size_t w = 0; w < width; ++w) keys[to * width + w] = packed[t * width + w];
    }
  });
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
    std::array<KeyRef, PathTable::kBatch> refs;
    while (const auto part = queue.next()) {
      const PathTable& more = other.tables_[*part];
      const std::size_t keys = more.size();  // fixed, also when a table is added to itself
      std::size_t filled = 0;
      for (std::size_t i = 0; i < keys; ++i) {
        const std::uint64_t* key = more.key(i);
        const auto fingerprint = static_cast<std::uint32_t>(hash_key(key, codec_.words()));
        refs[filled++] = {key, fingerprint, more.count(i)};
        if (filled == refs.size() || i + 1 == keys) {
          tables_[*part].add(std::span(refs).first(filled));
          filled = 0;
        }
      }
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
  // Several tables, because increments of the same cell would wait for each other, and most counts
  // are 1.
  constexpr std::size_t kParts = 4;
  std::vector<std::uint64_t> parts(kParts * kSmallCount);
  std::map<std::uint64_t, std::uint64_t> large;
  for (const PathTable& table : tables_) {
    std::size_t part = 0;
    for (const std::uint64_t count : table.counts()) {
      ++(count < kSmallCount ? parts[part * kSmallCount + count] : large[count]);
      part = (part + 1) % kParts;
    }
  }
  std::vector<std::uint64_t> small(kSmallCount);
  for (std::size_t i = 0; i < parts.size(); ++i) small[i % kSmallCount] += parts[i];
  std::vector<std::pair<std::uint64_t, std::uint64_t>> result(large.rbegin(), large.rend());
  for (std::uint64_t count = kSmallCount - 1; count > 0; --count) {
    if (small[count] > 0) result.emplace_back(count, small[count]);
  }
  return result;
}

std::vector<PathCounts::Entry> PathCounts::most_frequent(std::size_t number) const {
  if (number == 0) return {};
  // The least count that is still wanted: all paths above it and some paths at it.
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
  std::vector<Entry> best;  // a heap with the last of them at its root
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
