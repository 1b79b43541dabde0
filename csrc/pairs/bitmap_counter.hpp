#pragma once

#include <cstddef>
#include <vector>

#include "base/token_ranges.hpp"
#include "bits/and_popcount.hpp"
#include "pairs/count_job.hpp"

namespace routestats {

// Counts by AND and popcount of columns of bits. Tables of few experts are small, so every worker
// counts whole blocks into tables of its own, and no worker waits for another.
class BitmapCounter {
 public:
  BitmapCounter(const CountJob& job, Isa isa);

  // Adds the view in blocks of `block` tokens, except the blocks that it returns: in these a token
  // names an expert twice at one layer, and bits cannot say how often.
  std::vector<TokenRange> add(const ExpertView& view, std::size_t block);

 private:
  const CountJob& job_;
  const AndPopcount kernel_;
};

}  // namespace routestats
