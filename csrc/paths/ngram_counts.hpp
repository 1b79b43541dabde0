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

// For each start layer and each length n that fits, counts of the paths of first choices through n
// layers. Everything is indexed [start, n - 1, ...]; where the length does not fit there are zeros.
struct NgramTable {
  std::size_t top = 0;                  // how many are listed
  std::vector<std::uint64_t> distinct;  // [layers, layers]
  // The most frequent n-grams, from the most frequent on; equally frequent ones in lexicographic
  // order. If there are fewer, the other counts are 0.
  std::vector<std::uint64_t> counts;  // [layers, layers, top]
  std::vector<std::uint16_t> ids;     // [layers, layers, top, layers], the first n of the last axis
};

// Counts n-grams of first choices at all start layers in one sweep. The positional Burrows-Wheeler
// transform sorts the paths by the layers from `start` on, so all tokens of an n-gram stand side by
// side, for every n at once. If a sample of the first tokens says that many tokens repeat a path,
// the sweep sorts distinct paths; else it sorts all tokens, because the search for equal paths
// would cost more than it saves. Memory holds the distinct paths, or the first choices of all
// tokens, one byte or two each.
class NgramCounter {
 public:
  // Throws std::invalid_argument if an argument is 0 or too large.
  NgramCounter(std::size_t layers, std::size_t experts);

  // Takes more tokens, which must have the same number of slots in every call. Throws
  // ExpertOutOfRange for an id in any slot and then takes no token; its message calls the first one
  // `first_token`.
  void add(const ExpertView& view, std::uint64_t first_token, unsigned threads);

  std::size_t tokens() const { return tokens_; }
  // Whether the sweep sorts distinct paths.
  bool collapses() const { return paths_.has_value(); }
  // The number of paths that the sweep sorts: distinct ones, or those of all tokens. No window has
  // more n-grams.
  std::size_t paths() const { return paths_ ? paths_->distinct() : tokens_; }
  // The sweep, on up to four threads. It lists `top` n-grams of each window, but at most as many as
  // there are tokens.
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

  // First choices of some tokens: [layers, tokens], one byte each up to 256 experts, else two.
  struct Choices {
    std::size_t tokens;
    std::unique_ptr<std::byte[]> ids;
  };

  std::size_t layers_;
  std::size_t experts_;
  std::size_t tokens_ = 0;
  // One of these, from the first tokens on.
  std::optional<PathCounts> paths_;
  std::vector<Choices> choices_;
};

}  // namespace routestats
