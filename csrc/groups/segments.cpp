#include "groups/segments.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/workers.hpp"

namespace routestats {
namespace {

using Id = std::uint16_t;

// The ids of one run at one layer, token after token.
struct Run {
  const Id* ids;
  std::size_t tokens;
  std::size_t slots;

  std::span<const Id> of(std::size_t token) const { return {ids + token * slots, slots}; }
};

// How many tokens of the window choose each expert. The count of an expert changes only when a
// token that chose it enters or leaves, so all windows since the last change are added at once. The
// work per token goes with the slots, not with the experts.
class WindowUses {
 public:
  WindowUses(std::size_t experts, std::size_t m) : m_(m), count_(experts), since_(experts) {}

  void add(const Run& run, std::uint64_t* uses) {
    if (run.tokens < m_) return;
    std::fill(count_.begin(), count_.end(), 0);
    std::fill(since_.begin(), since_.end(), 0);
    for (std::size_t t = 0; t < m_; ++t) {
      for (const Id e : run.of(t)) ++count_[e];
    }
    const std::size_t windows = run.tokens - m_ + 1;
    for (std::size_t w = 1; w < windows; ++w) {
      for (const Id e : run.of(w - 1)) {
        close(e, w, uses);
        --count_[e];
      }
      for (const Id e : run.of(w + m_ - 1)) {
        close(e, w, uses);
        ++count_[e];
      }
    }
    for (std::size_t e = 0; e < count_.size(); ++e) close(static_cast<Id>(e), windows, uses);
  }

 private:
  void close(Id e, std::size_t window, std::uint64_t* uses) {
    uses[count_[e]] += window - since_[e];
    since_[e] = window;
  }

  const std::size_t m_;
  std::vector<std::uint32_t> count_;
  std::vector<std::size_t> since_;
};

class LookingCache {
 public:
  LookingCache(std::size_t experts, std::size_t m, std::size_t capacity)
      : m_(m), capacity_(capacity), future_(experts), held_(experts) {}

  std::uint64_t hits(const Run& run) {
    std::fill(future_.begin(), future_.end(), 0);
    for (const Id e : pool_) held_[e] = false;
    pool_.clear();
    for (std::size_t t = 1; t <= std::min(m_, run.tokens - 1); ++t) count(run.of(t), 1);

    std::uint64_t hits = 0;
    for (std::size_t t = 0; t < run.tokens; ++t) {
      for (const Id e : run.of(t)) {
        if (held_[e]) {
          ++hits;
        } else {
          held_[e] = true;
          pool_.push_back(e);
        }
      }
      if (pool_.size() > capacity_) evict();
      // The window moves from the m tokens after t to the m tokens after t + 1.
      if (t + 1 < run.tokens) count(run.of(t + 1), -1);
      if (t + 1 + m_ < run.tokens) count(run.of(t + 1 + m_), 1);
    }
    return hits;
  }

 private:
  void count(std::span<const Id> ids, int change) {
    for (const Id e : ids) future_[e] += change;
  }

  void evict() {
    const auto kept = pool_.begin() + static_cast<std::ptrdiff_t>(capacity_);
    std::nth_element(pool_.begin(), kept, pool_.end(), [this](Id a, Id b) {
      return future_[a] != future_[b] ? future_[a] > future_[b] : a < b;
    });
    for (auto out = kept; out != pool_.end(); ++out) held_[*out] = false;
    pool_.erase(kept, pool_.end());
  }

  const std::size_t m_;
  const std::size_t capacity_;
  std::vector<std::int32_t> future_;  // uses in the next m tokens
  std::vector<std::uint8_t> held_;
  std::vector<Id> pool_;
};

void check_runs(const ExpertView& view, const TokenRuns& runs, std::size_t groups) {
  const auto& starts = runs.starts;
  const auto tokens = static_cast<std::int64_t>(runs.tokens.size());
  if (starts.size() != runs.groups.size() + 1 || starts.front() != 0 || starts.back() != tokens ||
      !std::is_sorted(starts.begin(), starts.end())) {
    throw std::invalid_argument("starts: expected ascending from 0 to the number of tokens");
  }
  const auto outside = [](std::span<const std::int64_t> values, std::size_t limit) {
    return std::any_of(values.begin(), values.end(), [limit](std::int64_t value) {
      return static_cast<std::uint64_t>(value) >= limit;
    });
  };
  if (outside(runs.tokens, view.tokens)) {
    throw std::invalid_argument("tokens: expected below " + std::to_string(view.tokens));
  }
  if (outside(runs.groups, groups)) {
    throw std::invalid_argument("groups: expected below " + std::to_string(groups));
  }
}

// Copies the ids of a run at one layer. Throws if a token names an expert twice.
template <class Item>
class LayerReader {
 public:
  LayerReader(const ExpertView& view, std::size_t layer, std::size_t experts)
      : view_(view), layer_(layer), last_read_(experts, 0) {}

  Run read(std::span<const std::int64_t> tokens) {
    ids_.resize(tokens.size() * view_.slots);
    Id* out = ids_.data();
    for (const std::int64_t token : tokens) {
      ++reads_;
      for (std::size_t k = 0; k < view_.slots; ++k) {
        const auto id =
            static_cast<Id>(load_id<Item>(view_, static_cast<std::size_t>(token), layer_, k));
        if (last_read_[id] == reads_) report_twice(token, id);
        last_read_[id] = reads_;
        *out++ = id;
      }
    }
    return {ids_.data(), tokens.size(), view_.slots};
  }

 private:
  [[noreturn]] void report_twice(std::int64_t token, Id id) const {
    throw std::invalid_argument("experts[" + std::to_string(token) + ", " + std::to_string(layer_) +
                                "]: expected distinct experts, got " + std::to_string(id) +
                                " twice");
  }

  const ExpertView& view_;
  const std::size_t layer_;
  // Tokens are numbered in the order of reading: a token may stand in several runs.
  std::uint64_t reads_ = 0;
  std::vector<std::uint64_t> last_read_;
  std::vector<Id> ids_;
};

}  // namespace

void count_segments(const ExpertView& view, std::size_t experts, const TokenRuns& runs,
                    std::size_t m, std::size_t capacity, const SegmentTables& tables,
                    unsigned threads) {
  check_num_experts(experts);
  if (m == 0) throw std::invalid_argument("m: expected at least 1, got 0");
  if (capacity == 0) throw std::invalid_argument("capacity: expected at least 1, got 0");
  check_runs(view, runs, tables.groups);
  check_experts(view, experts, 0, threads);

  with_id_type(view, [&]<class Item>(Item) {
    run_workers(view.layers, threads, [&](ItemQueue& queue) {
      WindowUses windows(experts, m);
      LookingCache cache(experts, m, capacity);
      while (const auto layer = queue.next()) {
        LayerReader<Item> reader(view, *layer, experts);
        for (std::size_t r = 0; r < runs.groups.size(); ++r) {
          const auto first = static_cast<std::size_t>(runs.starts[r]);
          const auto last = static_cast<std::size_t>(runs.starts[r + 1]);
          if (first == last) continue;
          const Run run = reader.read(runs.tokens.subspan(first, last - first));
          const std::size_t place = static_cast<std::size_t>(runs.groups[r]) * view.layers + *layer;
          windows.add(run, tables.uses + place * (m + 1));
          tables.hits[place] += cache.hits(run);
        }
      }
    });
  });
}

}  // namespace routestats
