#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "routestats/expert_view.hpp"
#include "routestats/row_sums.hpp"

namespace routestats {

// A segment of tokens as one row of bits each: the columns first_column..first_column + 511 of all
// its (layer, expert), numbered layer * experts + expert. In blocks of kRowBlockTokens rows, each
// followed by a row of zeros.
class BitRows {
 public:
  BitRows(std::size_t experts, std::size_t max_tokens);

  void fill(const ExpertView& segment, std::size_t first_column, unsigned threads);

  const std::uint64_t* block(std::size_t block) const;

 private:
  const std::size_t experts_;
  const std::vector<std::uint64_t> one_hot_;
  std::unique_ptr<BitRow[]> rows_;
};

}  // namespace routestats
