#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/expert_view.hpp"
#include "bits/row_sums.hpp"

namespace routestats {

// Tokens of a block of rows. The entries of lists and the row of zeros behind the block fit 16
// bits.
inline constexpr std::size_t kRowBlockTokens = 4096;
static_assert(kRowBlockTokens * kRowWords <= 65'535);

// For every (block, layer, expert) of a segment the tokens of the block that chose the expert. A
// token is given as the place of its row among the words of the block. The length of a list is
// filled up to a multiple of kListStep with the place of the row of zeros.
class TokenLists {
 public:
  TokenLists(std::size_t layers, std::size_t experts, std::size_t slots, std::size_t max_tokens);

  // Replaces the content by the ids of a segment, which must be checked already. Returns whether
  // every token names distinct experts at each layer.
  bool fill(const ExpertView& segment, unsigned threads);

  std::size_t blocks() const { return blocks_; }
  std::span<const std::uint16_t> list(std::size_t block, std::size_t layer,
                                      std::size_t expert) const {
    const std::size_t place = block * layers_ + layer;
    const std::uint32_t* begin = begins_.get() + place * (experts_ + 1) + expert;
    return {entries_.get() + place * capacity_ + begin[0], begin[1] - begin[0]};
  }
  // Adds to load[e] the number of slots of the segment that hold expert e at a layer.
  void add_load(std::size_t layer, std::uint64_t* load) const;

 private:
  bool fill_lists(std::size_t place, const std::uint16_t* ids, std::size_t tokens,
                  std::uint16_t* scratch);

  const std::size_t layers_;
  const std::size_t experts_;
  const std::size_t slots_;
  const std::size_t capacity_;  // entries of one block and layer
  std::size_t blocks_ = 0;
  std::unique_ptr<std::uint16_t[]> entries_;
  std::unique_ptr<std::uint32_t[]> begins_;   // [blocks, layers, experts + 1]
  std::unique_ptr<std::uint32_t[]> lengths_;  // [blocks, layers, experts], without padding
};

}  // namespace routestats
