#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/expert_view.hpp"

namespace routestats {

// A block of tokens as one column of bits per (layer, expert): bit t is set if token t chose the
// expert in any slot. The columns of a layer lie side by side.
class BitColumns {
 public:
  BitColumns(std::size_t layers, std::size_t experts, std::size_t max_tokens);

  // Replaces the content by the ids of a block, which must be checked already.
  void fill(const ExpertView& block);

  // `experts` columns of words() words. Bits after the last token are zero.
  const std::uint64_t* layer(std::size_t layer) const {
    return bits_.data() + layer * experts_ * words_;
  }
  const std::uint64_t* column(std::size_t layer_number, std::size_t expert) const {
    return layer(layer_number) + expert * words_;
  }
  std::size_t words() const { return words_; }

 private:
  const std::size_t layers_;
  const std::size_t experts_;
  std::size_t words_ = 0;
  std::vector<std::uint64_t> bits_;
  std::vector<std::uint64_t> scratch_;  // a slice of every column
};

}  // namespace routestats
