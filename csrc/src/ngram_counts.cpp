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

constexpr std::size_t kSliceTokens = 1024;

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

// The first `number` places that share fewer than n layers with either neighbour.
template <class Length>
void append_single(std::span<const Length> lengths, std::size_t n, std::size_t number,
                   std::vector<Interval>& list) {
  for (std::size_t i = 0; number > 0 && i < lengths.size(); ++i) {
    if (lengths[i] >= n || (i + 1 < lengths.size() && lengths[i + 1] >= n)) continue;
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
  if (experts <= 256) {
    narrow_.resize(layers);
  } else {
    wide_.resize(layers);
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
  if (experts_ <= 256) {
    append(view, narrow_, threads);
  } else {
    append(view, wide_, threads);
  }
  tokens_ += view.tokens;
}

template <class Symbol>
void NgramCounter::append(const ExpertView& view, Columns<Symbol>& columns, unsigned threads) {
  for (auto& column : columns) column.resize(tokens_ + view.tokens);
  const std::size_t slices = (view.tokens + kSliceTokens - 1) / kSliceTokens;
  with_id_type(view, [&]<class Id>(Id) {
    run_workers(slices, threads, [&](ItemQueue& queue) {
      while (const auto slice = queue.next()) {
        const std::size_t first = *slice * kSliceTokens;
        const std::size_t end = std::min(view.tokens, first + kSliceTokens);
        for (std::size_t l = 0; l < layers_; ++l) {
          Symbol* column = columns[l].data() + tokens_;
          for (std::size_t t = first; t < end; ++t) {
            column[t] = static_cast<Symbol>(load_id<Id>(view, t, l, 0));
          }
        }
      }
    });
  });
}

NgramTable NgramCounter::count(std::size_t top, unsigned threads) const {
  const bool short_paths = layers_ <= std::numeric_limits<std::uint8_t>::max();
  if (experts_ <= 256) {
    return short_paths ? sweep<std::uint8_t, std::uint8_t>(narrow_, top, threads)
                       : sweep<std::uint8_t, std::uint16_t>(narrow_, top, threads);
  }
  return short_paths ? sweep<std::uint16_t, std::uint8_t>(wide_, top, threads)
                     : sweep<std::uint16_t, std::uint16_t>(wide_, top, threads);
}

template <class Symbol, class Length>
NgramTable NgramCounter::sweep(const Columns<Symbol>& columns, std::size_t top,
                               unsigned threads) const {
  const std::size_t most = std::numeric_limits<std::size_t>::max() / (layers_ * layers_ * layers_);
  if (top > most) throw std::length_error("top: expected fewer n-grams");
  NgramTable table;
  table.distinct.resize(layers_ * layers_);
  table.counts.resize(layers_ * layers_ * top);
  table.ids.resize(layers_ * layers_ * top * layers_);

  // What the tokens sorted from `start` on show.
  const auto describe = [&](std::size_t start, std::span<const std::uint32_t> order,
                            std::span<const Length> lengths) {
    const std::size_t longest = layers_ - start;
    const auto shared = histogram(lengths, longest);
    FrequentIntervals frequent(longest, top);
    offer_intervals(lengths, frequent);
    std::uint64_t distinct = 0;
    for (std::size_t n = 1; n <= longest; ++n) {
      distinct += shared[n - 1];  // each place that shares fewer than n layers begins an n-gram
      const std::size_t cell = start * layers_ + n - 1;
      table.distinct[cell] = distinct;
      std::vector<Interval> list = frequent.sorted(n);
      const std::size_t listed = std::min<std::uint64_t>(top, distinct);
      append_single(lengths, n, listed - list.size(), list);
      for (std::size_t i = 0; i < list.size(); ++i) {
        table.counts[cell * top + i] = list[i].count;
        const std::uint32_t token = order[list[i].first];
        std::uint16_t* ids = table.ids.data() + (cell * top + i) * layers_;
        for (std::size_t l = 0; l < n; ++l) ids[l] = columns[start + l][token];
      }
    }
  };

  Pbwt<Length> sorted(tokens_);
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
