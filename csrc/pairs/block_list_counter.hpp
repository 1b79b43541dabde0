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

// The counts of a part are expanded and added to the tables once. They fit the planes.
inline constexpr std::size_t kBlockListPartTokens = std::size_t{1} << 17;
inline constexpr std::size_t kMostPartTokens = std::size_t{1} << 20;

// Source layers and tokens that must be counted by another method.
struct LeftPart {
  std::size_t first_layer;
  std::size_t layers;
  std::vector<TokenRange> tokens;
};

// Counts source layers with few targets, by sums of rows as in ListCounter. But a row holds only
// the target layers of its source, and the lists of a block are summed while they are in a cache,
// then dropped. With few targets a list is read once or twice, so the time to make it matters.
class BlockListCounter {
 public:
  BlockListCounter(const CountJob& job, Isa isa);

  // Adds all but the parts that it returns, of which it adds nothing: in these a token names an
  // expert twice at one layer. It returns as few parts as possible. `part_tokens` is at most
  // kMostPartTokens.
  std::vector<LeftPart> add(const ExpertView& view, std::size_t part_tokens);

 private:
  // Words of a target layer that are part of a row.
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
    std::size_t rows;               // of all source layers
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
