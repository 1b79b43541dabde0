#include "bits/block_lists.hpp"

#include <algorithm>

#include "bits/row_sums.hpp"
#include "bits/scatter_tokens.hpp"

namespace routestats {
namespace {

// Lists that begin a power of two apart would evict each other from the first-level cache.
constexpr std::size_t kApart = 32;

}  // namespace

// Every list has room for all tokens of a block, which is enough if experts are distinct. So
// nothing has to be counted beforehand.
BlockLists::BlockLists(std::size_t experts, std::size_t slots, std::size_t max_tokens,
                       std::size_t row_words)
    : experts_(experts),
      slots_(slots),
      room_(max_tokens + kApart),
      row_words_(row_words),
      padding_(static_cast<std::uint16_t>(max_tokens * row_words)),
      entries_(std::make_unique_for_overwrite<std::uint16_t[]>(experts * room_)),
      ends_(experts) {
  static_assert(kListStep <= kApart);
}

void BlockLists::fill(const std::uint16_t* ids, std::size_t tokens) {
  for (std::size_t e = 0; e < experts_; ++e) ends_[e] = static_cast<std::uint32_t>(e * room_);
  scatter_tokens(ids, tokens, slots_, row_words_, ends_.data(), entries_.get());
  for (std::size_t e = 0; e < experts_; ++e) {
    std::fill_n(entries_.get() + ends_[e], kListStep - 1, padding_);
  }
}

std::span<const std::uint16_t> BlockLists::padded(std::size_t expert) const {
  return {entries_.get() + expert * room_,
          (length(expert) + kListStep - 1) / kListStep * kListStep};
}

}  // namespace routestats
