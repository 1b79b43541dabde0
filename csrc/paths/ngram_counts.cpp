#include "paths/ngram_counts.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "base/workers.hpp"
#include "contexts/pbwt.hpp"
#include "contexts/pbwt_sweep.hpp"
#include "paths/frequent_intervals.hpp"

namespace routestats {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kSlicePaths = 256;
constexpr std::size_t kSampleTokens = 16'384;
// A sample of fewer tokens tells little, and both ways are fast.
constexpr std::size_t kLeastSampled = 1024;

// How many places share exactly 0, 1, ..., longest layers with the place before them.
template <class Length>
std::vector<std::uint64_t> histogram(std::span<const Length> lengths, std::size_t longest) {
  // Four tables, because increments of the same cell would wait for each other.
  std::array<std::vector<std::uint64_t>, 4> parts;
  for (auto& part : parts) part.resize(longest + 1);
  for (std::size_t i = 0; i < lengths.size(); ++i) ++parts[i % 4][lengths[i]];
  for (std::size_t n = 0; n <= longest; ++n) {
    parts[0][n] += parts[1][n] + parts[2][n] + parts[3][n];
  }
  return parts[0];
}

// The first `number` places of one token that share fewer than n layers with each neighbour.
template <class Length>
void append_single(std::span<const Length> lengths, std::span<const std::uint32_t> before,
                   std::size_t n, std::size_t number, std::vector<Interval>& list) {
  for (std::size_t i = 0; number > 0 && i < lengths.size(); ++i) {
    if (lengths[i] >= n || (i + 1 < lengths.size() && lengths[i + 1] >= n)) continue;
    if (before[i + 1] - before[i] != 1) continue;
    list.push_back({1, static_cast<std::uint32_t>(i)});
    --number;
  }
}

// Whether so many tokens of a sample have a path of their own that the search for equal paths would
// cost more than it saves in the sweep over the tokens. A step of the sweep costs more with more
// experts.
bool mostly_distinct(ExpertView view, const PathShape& shape, unsigned threads) {
  if (view.tokens < kLeastSampled) return false;
  const std::size_t every = (view.tokens + kSampleTokens - 1) / kSampleTokens;
  view.token_stride *= static_cast<std::ptrdiff_t>(every);
  view.tokens /= every;
  PathCounts sample(shape);
  sample.add(view, 0, threads);
  const std::size_t repeated = view.tokens - sample.distinct();
  return (shape.experts <= 16 ? 4 : 16) * repeated <= view.tokens;
}

// Writes the first choices of a view as [layers, ...], `stride` items from layer to layer.
template <class Symbol>
void copy_first_choices(const ExpertView& view, Symbol* to, std::size_t stride) {
  with_id_type(view, [&]<class Id>(Id) {
    for (std::size_t l = 0; l < view.layers; ++l) {
      for (std::size_t t = 0; t < view.tokens; ++t) {
        to[l * stride + t] = static_cast<Symbol>(load_id<Id>(view, t, l, 0));
      }
    }
  });
}

}  // namespace

NgramCounter::NgramCounter(std::size_t layers, std::size_t experts)
    : layers_(layers), experts_(experts) {
  if (layers == 0 || layers >= std::numeric_limits<std::uint16_t>::max() || experts == 0 ||
      experts > kMaxExperts) {
    throw std::invalid_argument("n-grams: expected a layer and 1 to 65536 experts");
  }
}

void NgramCounter::add(const ExpertView& view, std::uint64_t first_token, unsigned threads) {
  if (view.layers != layers_ || view.slots == 0) {
    throw std::invalid_argument("experts: of other layers than the n-grams");
  }
  if (view.tokens > std::numeric_limits<std::uint32_t>::max() - tokens_) {
    throw std::length_error("n-grams: expected fewer than 2^32 tokens");
  }
  check_experts(view, experts_, first_token, threads);
  if (view.tokens == 0) return;
  if (tokens_ == 0) {
    const PathShape shape{PathKind::top1, experts_, view.slots, 0, layers_};
    if (!mostly_distinct(view, shape, threads)) paths_.emplace(shape);
  }
  if (paths_) {
    paths_->add(view, first_token, threads);
  } else {
    keep(view, threads);
  }
  tokens_ += view.tokens;
}

void NgramCounter::keep(const ExpertView& view, unsigned threads) {
  const std::size_t bytes = experts_ <= 256 ? 1 : 2;
  Choices more{view.tokens,
               std::make_unique_for_overwrite<std::byte[]>(layers_ * view.tokens * bytes)};
  const std::size_t slices = (view.tokens + kSlicePaths - 1) / kSlicePaths;
  run_workers(slices, threads, [&](ItemQueue& queue) {
    while (const auto slice = queue.next()) {
      const std::size_t first = *slice * kSlicePaths;
      const auto part = view.tokens_from(first, std::min(kSlicePaths, view.tokens - first));
      if (bytes == 1) {
        copy_first_choices(part, reinterpret_cast<std::uint8_t*>(more.ids.get()) + first,
                           view.tokens);
      } else {
        copy_first_choices(part, reinterpret_cast<std::uint16_t*>(more.ids.get()) + first,
                           view.tokens);
      }
    }
  });
  choices_.push_back(std::move(more));
}

template <class Symbol>
void NgramCounter::gather(const Columns<Symbol>& columns) const {
  std::size_t first = 0;
  for (const Choices& some : choices_) {
    const auto* ids = reinterpret_cast<const Symbol*>(some.ids.get());
    for (std::size_t l = 0; l < layers_; ++l) {
      std::copy_n(ids + l * some.tokens, some.tokens, columns[l].data() + first);
    }
    first += some.tokens;
  }
}

template <class Symbol>
void NgramCounter::unpack(const Columns<Symbol>& columns, std::span<std::uint32_t> tokens,
                          unsigned threads) const {
  const auto tables = paths_->tables();
  std::vector<std::size_t> firsts(tables.size());
  for (std::size_t i = 1; i < tables.size(); ++i) firsts[i] = firsts[i - 1] + tables[i - 1].size();
  run_workers(tables.size(), threads, [&](ItemQueue& queue) {
    std::vector<std::uint16_t> ids(kSlicePaths * layers_);
    while (const auto item = queue.next()) {
      const PathTable& table = tables[*item];
      for (std::size_t slice = 0; slice < table.size(); slice += kSlicePaths) {
        const std::size_t paths = std::min(kSlicePaths, table.size() - slice);
        const std::size_t first = firsts[*item] + slice;
        for (std::size_t i = 0; i < paths; ++i) {
          tokens[first + i] = static_cast<std::uint32_t>(table.count(slice + i));
          paths_->codec().unpack(table.key(slice + i), ids.data() + i * layers_);
        }
        for (std::size_t l = 0; l < layers_; ++l) {
          Symbol* column = columns[l].data() + first;
          for (std::size_t i = 0; i < paths; ++i) {
            column[i] = static_cast<Symbol>(ids[i * layers_ + l]);
          }
        }
      }
    }
  });
}

NgramTable NgramCounter::count(std::size_t top, unsigned threads) const {
  const bool short_paths = layers_ <= std::numeric_limits<std::uint8_t>::max();
  if (experts_ <= 256) {
    return short_paths ? sweep<std::uint8_t, std::uint8_t>(top, threads)
                       : sweep<std::uint8_t, std::uint16_t>(top, threads);
  }
  return short_paths ? sweep<std::uint16_t, std::uint8_t>(top, threads)
                     : sweep<std::uint16_t, std::uint16_t>(top, threads);
}

template <class Symbol, class Length>
NgramTable NgramCounter::sweep(std::size_t top, unsigned threads) const {
  const std::size_t paths = this->paths();
  // Columns begin in different lines of the first-level cache.
  const std::size_t lines = (paths * sizeof(Symbol) / kLineBytes + 2) | 1;
  KeyArena arena;
  auto* symbols = reinterpret_cast<Symbol*>(
      arena.allocate(lines * layers_ * (kLineBytes / sizeof(std::uint64_t))));
  Columns<Symbol> columns(layers_);
  for (std::size_t l = 0; l < layers_; ++l) {
    columns[l] = {symbols + l * lines * (kLineBytes / sizeof(Symbol)), paths};
  }
  std::vector<std::uint32_t> tokens(paths_ ? paths : 0);
  if (paths_) {
    unpack(columns, std::span(tokens), threads);
  } else {
    gather(columns);
  }

  NgramTable table;
  table.top = std::min(top, paths);
  const std::size_t most = std::numeric_limits<std::size_t>::max() / (layers_ * layers_ * layers_);
  if (table.top > most) throw std::length_error("top: expected fewer n-grams");
  table.distinct.resize(layers_ * layers_);
  table.counts.resize(layers_ * layers_ * table.top);
  table.ids.resize(layers_ * layers_ * table.top * layers_);

  // For each worker: the number of tokens before each place, and of all. If each place is one
  // token, this is the number of the place, and one array serves all workers.
  std::array<std::vector<std::uint32_t>, kMostSweepThreads> tokens_before;
  if (!paths_) {
    tokens_before[0].resize(paths + 1);
    std::iota(tokens_before[0].begin(), tokens_before[0].end(), 0u);
  }

  Pbwt<Length> sorted(paths);
  // Layers from the last one backwards.
  const auto step = [&](std::size_t i) {
    sorted.step(std::span<const Symbol>(columns[layers_ - 1 - i]), experts_);
  };
  // The counts of one start layer, from the paths sorted by the layers from there on.
  const auto describe = [&](std::size_t worker, std::size_t i, std::span<const std::uint32_t> order,
                            std::span<const Length> lengths) {
    const std::size_t start = layers_ - 1 - i;
    const std::size_t longest = layers_ - start;
    if (paths_) {
      std::vector<std::uint32_t>& sums = tokens_before[worker];
      sums.resize(paths + 1);
      for (std::size_t p = 0; p < paths; ++p) sums[p + 1] = sums[p] + tokens[order[p]];
    }
    const std::span<const std::uint32_t> before = tokens_before[paths_ ? worker : 0];
    const auto shared = histogram(lengths, longest);
    FrequentIntervals frequent(longest, table.top);
    offer_intervals(lengths, before, longest, frequent);
    std::uint64_t distinct = 0;
    for (std::size_t n = 1; n <= longest; ++n) {
      distinct += shared[n - 1];  // a place that shares fewer than n layers begins an n-gram
      const std::size_t cell = start * layers_ + n - 1;
      table.distinct[cell] = distinct;
      std::vector<Interval> list = frequent.sorted(n);
      const std::size_t listed = std::min<std::uint64_t>(table.top, distinct);
      append_single(lengths, before, n, listed - list.size(), list);
      for (std::size_t k = 0; k < list.size(); ++k) {
        table.counts[cell * table.top + k] = list[k].count;
        const std::uint32_t path = order[list[k].first];
        std::uint16_t* ids = table.ids.data() + (cell * table.top + k) * layers_;
        for (std::size_t l = 0; l < n; ++l) ids[l] = columns[start + l][path];
      }
    }
  };
  PbwtSweep(sorted, layers_, step, describe).run(threads);
  return table;
}

}  // namespace routestats
