#include "bits/bit_columns.hpp"

#include <algorithm>

#include "bits/and_popcount.hpp"

namespace routestats {
namespace {

constexpr std::size_t kWordBits = 64;
// A slice is one cache line of each column. It is gathered in scratch memory, because the columns
// lie a large power of two apart and would evict each other from the first-level cache.
constexpr std::size_t kSliceWords = 8;
constexpr std::size_t kSliceTokens = kSliceWords * kWordBits;
static_assert(kColumnWords % kSliceWords == 0);

std::size_t padded_words(std::size_t tokens) {
  constexpr std::size_t step = kColumnWords * kWordBits;
  return (tokens + step - 1) / step * kColumnWords;
}

// FixedSlots = 0 reads the number and the stride of the slots at run time.
template <class Id, std::size_t FixedSlots>
void set_slot_bits(const ExpertView& slice, std::size_t experts, std::uint64_t* scratch) {
  const std::size_t slots = FixedSlots != 0 ? FixedSlots : slice.slots;
  const std::ptrdiff_t stride = FixedSlots != 0 ? sizeof(Id) : slice.slot_stride;
  for (std::size_t t = 0; t < slice.tokens; ++t) {
    const std::uint64_t bit = std::uint64_t{1} << (t % kWordBits);
    std::uint64_t* word = scratch + t / kWordBits;
    for (std::size_t l = 0; l < slice.layers; ++l, word += experts * kSliceWords) {
      const std::byte* row = slice.row(t, l);
      for (std::size_t k = 0; k < slots; ++k, row += stride) {
        Id id;
        std::memcpy(&id, row, sizeof id);
        word[std::size_t{id} * kSliceWords] |= bit;
      }
    }
  }
}

template <class Id>
void set_bits(const ExpertView& slice, std::size_t experts, std::uint64_t* scratch) {
  const bool dense = slice.slot_stride == sizeof(Id);
  if (dense && slice.slots == 1) return set_slot_bits<Id, 1>(slice, experts, scratch);
  if (dense && slice.slots == 2) return set_slot_bits<Id, 2>(slice, experts, scratch);
  set_slot_bits<Id, 0>(slice, experts, scratch);
}

}  // namespace

BitColumns::BitColumns(std::size_t layers, std::size_t experts, std::size_t max_tokens)
    : layers_(layers),
      experts_(experts),
      bits_(layers * experts * padded_words(max_tokens)),
      scratch_(layers * experts * kSliceWords) {}

void BitColumns::fill(const ExpertView& block) {
  words_ = padded_words(block.tokens);
  const std::size_t columns = layers_ * experts_;
  for (std::size_t slice = 0; slice < words_ / kSliceWords; ++slice) {
    std::fill(scratch_.begin(), scratch_.end(), 0);
    const std::size_t first = std::min(slice * kSliceTokens, block.tokens);
    const ExpertView part = block.tokens_from(first, std::min(kSliceTokens, block.tokens - first));
    with_id_type(part, [&]<class Id>(Id) { set_bits<Id>(part, experts_, scratch_.data()); });
    for (std::size_t c = 0; c < columns; ++c) {
      std::copy_n(scratch_.data() + c * kSliceWords, kSliceWords,
                  bits_.data() + c * words_ + slice * kSliceWords);
    }
  }
}

}  // namespace routestats
