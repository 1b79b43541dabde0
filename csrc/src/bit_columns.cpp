#include "routestats/bit_columns.hpp"

#include <algorithm>

#include "routestats/and_popcount.hpp"
#include "routestats/workers.hpp"

namespace routestats {
namespace {

constexpr std::size_t kWordBits = 64;
// A slice is a cache line of each column. It is gathered in a scratch of its own, because columns
// lie a large power of two apart and would evict each other from the first-level cache.
constexpr std::size_t kSliceWords = 8;
constexpr std::size_t kSliceTokens = kSliceWords * kWordBits;
static_assert(kColumnWords % kSliceWords == 0);

std::size_t padded_words(std::size_t tokens) {
  constexpr std::size_t step = kColumnWords * kWordBits;
  return (tokens + step - 1) / step * kColumnWords;
}

template <class Id>
void set_bits(const ExpertView& slice, std::size_t experts, std::uint64_t* scratch) {
  for (std::size_t t = 0; t < slice.tokens; ++t) {
    const std::uint64_t bit = std::uint64_t{1} << (t % kWordBits);
    std::uint64_t* word = scratch + t / kWordBits;
    for (std::size_t l = 0; l < slice.layers; ++l, word += experts * kSliceWords) {
      const std::byte* row = slice.row(t, l);
      for (std::size_t k = 0; k < slice.slots; ++k, row += slice.slot_stride) {
        Id id;
        std::memcpy(&id, row, sizeof id);
        word[std::size_t{id} * kSliceWords] |= bit;
      }
    }
  }
}

}  // namespace

BitColumns::BitColumns(std::size_t layers, std::size_t experts, std::size_t max_tokens)
    : layers_(layers), experts_(experts), bits_(layers * experts * padded_words(max_tokens)) {}

void BitColumns::fill(const ExpertView& block, unsigned threads) {
  words_ = padded_words(block.tokens);
  const std::size_t columns = layers_ * experts_;
  run_workers(words_ / kSliceWords, threads, [&](ItemQueue& queue) {
    std::vector<std::uint64_t> scratch(columns * kSliceWords);
    while (const auto slice = queue.next()) {
      std::fill(scratch.begin(), scratch.end(), 0);
      const std::size_t first = std::min(*slice * kSliceTokens, block.tokens);
      const ExpertView part =
          block.tokens_from(first, std::min(kSliceTokens, block.tokens - first));
      with_id_type(part, [&]<class Id>(Id) { set_bits<Id>(part, experts_, scratch.data()); });
      for (std::size_t c = 0; c < columns; ++c) {
        std::copy_n(scratch.data() + c * kSliceWords, kSliceWords,
                    bits_.data() + c * words_ + *slice * kSliceWords);
      }
    }
  });
}

}  // namespace routestats
