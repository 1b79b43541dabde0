#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/expert_view.hpp"
#include "paths/path_counts.hpp"

namespace routestats {

// For each start layer and each length n that fits, about the paths of first choices through the n
// layers from there on. Everything is indexed [start, n - 1, ...]; what does not fit is zero.
struct NgramTable {
  std::size_t top = 0;                  // that are listed of each
  std::vector<std::uint64_t> distinct;  // [layers, layers]
  // The most frequent ones, from the most frequent on, of equally frequent ones the
  // lexicographically smallest; a count of 0 where there are fewer.
  std::vector<std::uint64_t> counts;  // [layers, layers, top]
  std::vector<std::uint16_t> ids;     // [layers, layers, top, layers], the first n of the last axis
};

// Counts n-grams of first choices at all start layers in one sweep: the positional Burrows-Wheeler
// transform sorts the paths by the layers from `start` on, so that all of an n-gram stand side by
// side, for every n at once. Where many tokens repeat a path, tokens of one path are one to it;
// where few do, as a sample of the first tokens says, finding them would cost more than it saves.
// Holds the distinct paths or the first choices of all tokens, one byte or two each.
class NgramCounter {
 public:
  // Throws std::invalid_argument where something is 0 or too large.
  NgramCounter(std::size_t layers, std::size_t experts);

  // Takes more tokens, each time of as many slots. Throws ExpertOutOfRange for an id in any slot,
  // and then takes none; `first_token` is the number of token 0 in its message.
  void add(const ExpertView& view, std::uint64_t first_token, unsigned threads);

  std::size_t tokens() const { return tokens_; }
  // Whether tokens of one path are found before the sweep.
  bool collapses() const { return paths_.has_value(); }
  // What the sweep sorts: the distinct paths where they are found before it, else all tokens. No
  // window has more n-grams.
  std::size_t paths() const { return paths_ ? paths_->distinct() : tokens_; }
  // The sweep on up to four threads. Of each window as many n-grams are listed as were asked for,
  // at most as many as there are tokens.
  NgramTable count(std::size_t top, unsigned threads) const;

 private:
  template <class Symbol>
  using Columns = std::vector<std::span<Symbol>>;  // [layers, paths]
  template <class Symbol>
  void unpack(const Columns<Symbol>& columns, std::span<std::uint32_t> tokens,
              unsigned threads) const;
  template <class Symbol>
  void gather(const Columns<Symbol>& columns) const;
  template <class Symbol, class Length>
  NgramTable sweep(std::size_t top, unsigned threads) const;
  void keep(const ExpertView& view, unsigned threads);

  // First choices of some tokens: [layers, tokens], of one byte up to 256 experts and two above.
  struct Choices {
    std::size_t tokens;
    std::unique_ptr<std::byte[]> ids;
  };

  std::size_t layers_;
  std::size_t experts_;
  std::size_t tokens_ = 0;
  // From the first tokens on one of them.
  std::optional<PathCounts> paths_;
  std::vector<Choices> choices_;
};

}  // namespace routestats
