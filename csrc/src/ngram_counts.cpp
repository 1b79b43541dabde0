#include "routestats/ngram_counts.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>

#include "frequent_intervals.hpp"
#include "routestats/pbwt.hpp"
#include "routestats/workers.hpp"

namespace routestats {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kSlicePaths = 256;

// How many places share exactly 0, 1, ..., longest layers with the place before them.
template <class Length>
std::vector<std::uint64_t> histogram(std::span<const Length> lengths, std::size_t longest) {
  // Four, because the increments of one cell would wait for each other.
  std::array<std::vector<std::uint64_t>, 4> parts;
  for (auto& part : parts) part.resize(longest + 1);
  for (std::size_t i = 0; i < lengths.size(); ++i) ++parts[i % 4][lengths[i]];
  for (std::size_t n = 0; n <= longest; ++n) {
    parts[0][n] += parts[1][n] + parts[2][n] + parts[3][n];
  }
  return parts[0];
}

// The first `number` places of one token that share fewer than n layers with either neighbour.
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
  if (!paths_) paths_.emplace(PathShape{PathKind::top1, experts_, view.slots, 0, layers_});
  paths_->add(view, first_token, threads);
  tokens_ += view.tokens;
}

template <class Symbol>
void NgramCounter::unpack(const Columns<Symbol>& columns, std::span<std::uint32_t> tokens,
                          unsigned threads) const {
  if (!paths_) return;
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
  const std::size_t most = std::numeric_limits<std::size_t>::max() / (layers_ * layers_ * layers_);
  if (top > most) throw std::length_error("top: expected fewer n-grams");
  const std::size_t paths = paths_ ? paths_->distinct() : 0;
  // Columns begin in different lines of the first-level cache.
  const std::size_t lines = (paths * sizeof(Symbol) / kLineBytes + 2) | 1;
  KeyArena arena;
  auto* symbols = reinterpret_cast<Symbol*>(
      arena.allocate(lines * layers_ * (kLineBytes / sizeof(std::uint64_t))));
  Columns<Symbol> columns(layers_);
  for (std::size_t l = 0; l < layers_; ++l) {
    columns[l] = {symbols + l * lines * (kLineBytes / sizeof(Symbol)), paths};
  }
  std::vector<std::uint32_t> tokens(paths);
  unpack(columns, tokens, threads);

  NgramTable table;
  table.distinct.resize(layers_ * layers_);
  table.counts.resize(layers_ * layers_ * top);
  table.ids.resize(layers_ * layers_ * top * layers_);

  std::vector<std::uint32_t> before(paths + 1);
  // What the paths sorted from `start` on show.
  const auto describe = [&](std::size_t start, std::span<const std::uint32_t> order,
                            std::span<const Length> lengths) {
    const std::size_t longest = layers_ - start;
    for (std::size_t i = 0; i < paths; ++i) before[i + 1] = before[i] + tokens[order[i]];
    const auto shared = histogram(lengths, longest);
    FrequentIntervals frequent(longest, top);
    offer_intervals(lengths, std::span<const std::uint32_t>(before), longest, frequent);
    std::uint64_t distinct = 0;
    for (std::size_t n = 1; n <= longest; ++n) {
      distinct += shared[n - 1];  // each place that shares fewer than n layers begins an n-gram
      const std::size_t cell = start * layers_ + n - 1;
      table.distinct[cell] = distinct;
      std::vector<Interval> list = frequent.sorted(n);
      const std::size_t listed = std::min<std::uint64_t>(top, distinct);
      append_single(lengths, std::span<const std::uint32_t>(before), n, listed - list.size(), list);
      for (std::size_t i = 0; i < list.size(); ++i) {
        table.counts[cell * top + i] = list[i].count;
        const std::uint32_t path = order[list[i].first];
        std::uint16_t* ids = table.ids.data() + (cell * top + i) * layers_;
        for (std::size_t l = 0; l < n; ++l) ids[l] = columns[start + l][path];
      }
    }
  };

  Pbwt<Length> sorted(paths);
  const auto step = [&](std::size_t layer) {
    sorted.step(std::span<const Symbol>(columns[layer]), experts_);
  };
  step(layers_ - 1);
  for (std::size_t start = layers_; start-- > 0;) {
    // A step writes beside the arrays that it reads, so the present order can be described
    // meanwhile.
    const auto order = sorted.order();
    const auto lengths = sorted.lengths();
    run_workers(2, threads, [&](ItemQueue& queue) {
      while (const auto task = queue.next()) {
        if (*task == 1) {
          describe(start, order, lengths);
        } else if (start > 0) {
          step(start - 1);
        }
      }
    });
  }
  return table;
}

}  // namespace routestats
