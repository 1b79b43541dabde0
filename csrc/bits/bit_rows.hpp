#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/expert_view.hpp"
#include "bits/row_sums.hpp"

namespace routestats {

// A block of tokens as one row of bits each. Column layer * experts + expert stands for (layer,
// expert), and a row holds the columns first_column..first_column + 511. A row of zeros stands at
// kRowBlockTokens. The rows of a block fit the second-level cache.
class BitRows {
 public:
  explicit BitRows(std::size_t experts);

  // Takes up to kRowBlockTokens tokens.
  void fill(const ExpertView& block, std::size_t first_column);

  const std::uint64_t* words() const { return rows_[0].words; }

 private:
  const std::size_t experts_;
  const std::vector<std::uint64_t> one_hot_;
  std::unique_ptr<BitRow[]> rows_;
};

}  // namespace routestats
