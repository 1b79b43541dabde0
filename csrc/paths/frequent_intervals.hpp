#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace routestats {

// The distinct paths in sorted order from place `first` on, which have `count` tokens together.
struct Interval {
  std::uint32_t count;
  std::uint32_t first;
};

// For every n, the intervals of places that share n layers and have the most tokens, the first ones
// among equals: the most frequent n-grams.
class FrequentIntervals {
 public:
  FrequentIntervals(std::size_t longest, std::size_t top)
      : top_(top), lists_(longest + 1), least_(longest + 1, top == 0 ? kNever : 1) {
    update_least();
  }

  // An interval of a single token is not offered. An interval of `count` tokens counts for all n in
  // (shorter, longest]. Intervals of the same n come from left to right.
  void offer(Interval interval, std::size_t shorter, std::size_t longest) {
    if (interval.count <= least_of_all_) return;
    bool changed = false;
    for (std::size_t n = shorter + 1; n <= longest; ++n) {
      if (interval.count <= least_[n]) continue;
      std::vector<Interval>& list = lists_[n];
      if (list.size() == top_) {
        std::pop_heap(list.begin(), list.end(), comes_first);
        list.pop_back();
      }
      list.push_back(interval);
      std::push_heap(list.begin(), list.end(), comes_first);
      if (list.size() == top_) {
        least_[n] = list.front().count;
        changed = true;
      }
    }
    if (changed) update_least();
  }

  // An interval of at most this many tokens changes nothing.
  std::uint32_t least_of_all() const { return least_of_all_; }

  std::vector<Interval> sorted(std::size_t n) const {
    std::vector<Interval> list = lists_[n];
    std::sort(list.begin(), list.end(), comes_first);
    return list;
  }

 private:
  static constexpr std::uint32_t kNever = ~std::uint32_t{0};

  static bool comes_first(const Interval& a, const Interval& b) {
    return a.count != b.count ? a.count > b.count : a.first < b.first;
  }
  void update_least() {
    least_of_all_ = kNever;
    for (std::size_t n = 1; n < least_.size(); ++n) {
      least_of_all_ = std::min(least_of_all_, least_[n]);
    }
  }

  std::size_t top_;
  std::vector<std::vector<Interval>> lists_;  // heaps by n, the last of a list at its root
  std::vector<std::uint32_t> least_;          // by n: what an interval must exceed
  std::uint32_t least_of_all_ = 1;
};

// Offers the intervals of places that share layers. lengths[i] is the number of layers that place i
// shares with place i - 1; before[i] is the number of tokens of all places before i, and its last
// item that of all places. A stack holds the open intervals, each inside the one below it. The
// tokens of one place share all `longest` layers.
//
// A block can be cut short if it and the block before have together too few tokens for a wanted
// interval, and so have it and the block after. A wanted interval that enters the block then fills
// the block or a neighbour, so no length above the largest minimum of the three matters. Lengths
// cut down to this hardly vary, and the stack rests.
template <class Length>
void offer_intervals(std::span<const Length> lengths, std::span<const std::uint32_t> before,
                     std::size_t longest, FrequentIntervals& found) {
  constexpr std::size_t kBlock = 32;
  const std::size_t blocks = (lengths.size() + kBlock - 1) / kBlock;
  std::vector<Length> minima(blocks + 2, 0);  // of block b at b + 1
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t end = std::min(lengths.size(), (b + 1) * kBlock);
    Length least = lengths[b * kBlock];
    for (std::size_t i = b * kBlock; i < end; ++i) least = std::min(least, lengths[i]);
    minima[b + 1] = least;
  }
  struct Open {
    std::size_t shared;
    std::size_t first;
  };
  std::vector<Open> open{{0, 0}};
  const auto visit = [&](std::size_t place, std::size_t shared) {
    std::size_t first = place - 1;
    while (open.back().shared > shared) {
      const Open closing = open.back();
      open.pop_back();
      first = closing.first;
      found.offer({before[place] - before[first], static_cast<std::uint32_t>(first)},
                  std::max(shared, open.back().shared), closing.shared);
    }
    if (open.back().shared < shared) open.push_back({shared, first});
  };
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t limit = std::max({minima[b], minima[b + 1], minima[b + 2]});
    const auto tokens_between = [&](std::size_t first, std::size_t last) {
      return before[std::min(lengths.size(), last * kBlock)] - before[first * kBlock];
    };
    const bool cut = std::max(tokens_between(b == 0 ? 0 : b - 1, b + 1),
                              tokens_between(b, b + 2)) <= found.least_of_all();
    const std::size_t begin = b * kBlock;
    const std::size_t end = std::min(lengths.size(), begin + kBlock);
    // The very first place shares no layer, like the open interval at the bottom: it is not
    // visited.
    if (cut) {
      // No place here has enough tokens for a wanted interval. Most blocks have a single length.
      std::size_t current = open.back().shared;
      if (minima[b + 1] == limit) {
        if (current != limit) visit(begin, limit);
        continue;
      }
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t kept = std::min<std::size_t>(lengths[i], limit);
        if (kept == current) continue;
        visit(i, kept);
        current = kept;
      }
      continue;
    }
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t shared = lengths[i];
      if (shared != open.back().shared) visit(i, shared);
      if (before[i + 1] - before[i] > found.least_of_all() && open.back().shared < longest) {
        open.push_back({longest, i});
      }
    }
  }
  if (!lengths.empty()) visit(lengths.size(), 0);
}

}  // namespace routestats
