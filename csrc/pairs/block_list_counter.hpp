#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/expert_view.hpp"
#include "base/token_ranges.hpp"
#include "bits/row_sums.hpp"
#include "pairs/count_job.hpp"

namespace routestats {

// A part's counts are expanded and added to the tables once; they fit the planes, padding included.
inline constexpr std::size_t kBlockListPartTokens = std::size_t{1} << 17;
inline constexpr std::size_t kMostPartTokens = std::size_t{1} << 20;

// Source layers, and the tokens of which they are to be counted some other way.
struct LeftPart {
  std::size_t first_layer;
  std::size_t layers;
  std::vector<TokenRange> tokens;
};

// Counts a source layer's few targets: as ListCounter does, but a row holds the columns of exactly
// the layers that its source wants, and the lists of a block are summed while they are in a cache
// and then forgotten. With few targets a list is read only once or twice, and what makes it counts.
class BlockListCounter {
 public:
  BlockListCounter(const CountJob& job, Isa isa);

  // Adds all but the parts it returns, as few as there can be, in which a token names an expert
  // twice at one layer. Of these it has added nothing. `part_tokens` is at most kMostPartTokens.
  std::vector<LeftPart> add(const ExpertView& view, std::size_t part_tokens);

 private:
  // Words of a target layer that stand in a row.
  struct Piece {
    std::size_t pair;
    std::size_t target;  // layer
    std::size_t first_word;
    std::size_t words;
    std::size_t row_word;
  };
  using Row = std::vector<Piece>;
  // Source layers that a worker takes at a time, and all layers that it reads for them.
  struct Window {
    std::size_t first_layer;
    std::size_t last_layer;
    std::vector<std::size_t> read;  // ascending
    std::size_t rows;               // of all sources
  };
  class Worker;

  void make_rows();
  void make_windows();
  std::vector<LeftPart> left_parts(std::vector<std::vector<TokenRange>> of_windows) const;

  const CountJob& job_;
  const Isa isa_;
  const std::size_t layer_words_;
  std::size_t row_words_;
  RowSums sums_;
  std::vector<std::vector<Row>> rows_;  // of each source layer
  std::vector<Window> windows_;
};

}  // namespace routestats
