#include "block_lists.hpp"

#include <algorithm>

#include "routestats/row_sums.hpp"

namespace routestats {
namespace {

// Lists that began a power of two apart would evict each other from the first-level cache.
constexpr std::size_t kApart = 32;

// FixedSlots = 0 reads the number of slots at run time; the common ones are compiled in.
template <std::size_t FixedSlots>
void scatter(const std::uint16_t* ids, std::size_t tokens, std::size_t run_time_slots,
             std::size_t row_words, std::uint32_t* ends, std::uint16_t* entries) {
  const std::size_t slots = FixedSlots != 0 ? FixedSlots : run_time_slots;
  for (std::size_t t = 0; t < tokens; ++t, ids += slots) {
    const auto row = static_cast<std::uint16_t>(t * row_words);
    for (std::size_t k = 0; k < slots; ++k) entries[ends[ids[k]]++] = row;
  }
}

}  // namespace

// Every list has a room of its own, so that nothing is counted beforehand: of distinct experts, a
// block's tokens fill a room at most.
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
  const auto fill_with = [&] {
    switch (slots_) {
      case 4:
        return scatter<4>;
      case 6:
        return scatter<6>;
      case 8:
        return scatter<8>;
      default:
        return scatter<0>;
    }
  }();
  fill_with(ids, tokens, slots_, row_words_, ends_.data(), entries_.get());
  for (std::size_t e = 0; e < experts_; ++e) {
    std::fill_n(entries_.get() + ends_[e], kListStep - 1, padding_);
  }
}

std::span<const std::uint16_t> BlockLists::padded(std::size_t expert) const {
  return {entries_.get() + expert * room_,
          (length(expert) + kListStep - 1) / kListStep * kListStep};
}

}  // namespace routestats
