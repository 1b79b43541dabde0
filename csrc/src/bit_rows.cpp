#include "routestats/bit_rows.hpp"

#include <algorithm>

#include "routestats/token_lists.hpp"
#include "routestats/workers.hpp"

namespace routestats {
namespace {

constexpr std::size_t kBlockRows = kRowBlockTokens + 1;

std::size_t block_count(std::size_t tokens) {
  return (tokens + kRowBlockTokens - 1) / kRowBlockTokens;
}

// `before` is how many columns lie between the first column of the window's layers and of the rows;
// a column of another group wraps to a number too large.
template <class Id>
void set_bits(const ExpertView& window, std::size_t experts, std::size_t before, BitRow* rows) {
  for (std::size_t t = 0; t < window.tokens; ++t) {
    BitRow row{};
    for (std::size_t l = 0; l < window.layers; ++l) {
      const std::byte* slot = window.row(t, l);
      const std::size_t layer_column = l * experts - before;
      for (std::size_t k = 0; k < window.slots; ++k, slot += window.slot_stride) {
        Id id;
        std::memcpy(&id, slot, sizeof id);
        const std::size_t column = layer_column + std::size_t{id};
        if (column < kRowColumns) row.words[column / 64] |= std::uint64_t{1} << (column % 64);
      }
    }
    rows[t] = row;
  }
}

}  // namespace

BitRows::BitRows(std::size_t experts, std::size_t max_tokens)
    : experts_(experts),
      rows_(std::make_unique_for_overwrite<BitRow[]>(block_count(max_tokens) * kBlockRows)) {}

const std::uint64_t* BitRows::block(std::size_t block) const {
  return rows_[block * kBlockRows].words;
}

void BitRows::fill(const ExpertView& segment, std::size_t first_column, unsigned threads) {
  const std::size_t first_layer = first_column / experts_;
  const std::size_t last_layer =
      std::min(segment.layers, (first_column + kRowColumns - 1) / experts_ + 1);
  const std::size_t before = first_column - first_layer * experts_;
  run_workers(block_count(segment.tokens), threads, [&](ItemQueue& queue) {
    while (const auto block = queue.next()) {
      const std::size_t first = *block * kRowBlockTokens;
      const std::size_t tokens = std::min(kRowBlockTokens, segment.tokens - first);
      const ExpertView window =
          segment.tokens_from(first, tokens).layers_from(first_layer, last_layer - first_layer);
      BitRow* rows = &rows_[*block * kBlockRows];
      with_id_type(window, [&]<class Id>(Id) { set_bits<Id>(window, experts_, before, rows); });
      rows[kRowBlockTokens] = BitRow{};
    }
  });
}

}  // namespace routestats
