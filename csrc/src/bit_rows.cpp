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
    std::uint64_t* words = rows[t].words;
    rows[t] = BitRow{};
    __builtin_prefetch(window.row_ahead(t, 0));
    for (std::size_t l = 0; l < window.layers; ++l) {
      const std::byte* slot = window.row(t, l);
      const std::size_t layer_column = l * experts - before;
      for (std::size_t k = 0; k < window.slots; ++k, slot += window.slot_stride) {
        Id id;
        std::memcpy(&id, slot, sizeof id);
        const std::size_t column = layer_column + std::size_t{id};
        if (column < kRowColumns) words[column / 64] |= std::uint64_t{1} << (column % 64);
      }
    }
  }
}

// The same where layers fill whole words of a row, which are then put together in registers: bits
// set one by one in memory wait for each other when they meet in a word.
template <class Id, std::size_t LayerWords>
void set_words(const ExpertView& window, const std::uint64_t* one_hot, BitRow* rows) {
  for (std::size_t t = 0; t < window.tokens; ++t) {
    __builtin_prefetch(window.row_ahead(t, 0));
    rows[t] = BitRow{};
    for (std::size_t l = 0; l < window.layers; ++l) {
      const std::byte* slot = window.row(t, l);
      std::uint64_t bits[LayerWords] = {};
      for (std::size_t k = 0; k < window.slots; ++k, slot += window.slot_stride) {
        Id id;
        std::memcpy(&id, slot, sizeof id);
        const std::uint64_t* own = one_hot + std::size_t{id} * LayerWords;
        for (std::size_t w = 0; w < LayerWords; ++w) bits[w] |= own[w];
      }
      for (std::size_t w = 0; w < LayerWords; ++w) rows[t].words[l * LayerWords + w] = bits[w];
    }
  }
}

// [experts, experts / 64]: the words of a layer with one expert's bit.
std::vector<std::uint64_t> one_hot_words(std::size_t experts) {
  std::vector<std::uint64_t> words(experts * (experts / 64));
  for (std::size_t e = 0; e < experts; ++e) {
    words[e * (experts / 64) + e / 64] = std::uint64_t{1} << (e % 64);
  }
  return words;
}

bool layers_fill_words(std::size_t experts) {
  return experts == 64 || experts == 128 || experts == 256;
}

}  // namespace

BitRows::BitRows(std::size_t experts, std::size_t max_tokens)
    : experts_(experts),
      one_hot_(layers_fill_words(experts) ? one_hot_words(experts) : std::vector<std::uint64_t>{}),
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
      with_id_type(window, [&]<class Id>(Id) {
        switch (one_hot_.empty() ? 0 : experts_) {
          case 64:
            return set_words<Id, 1>(window, one_hot_.data(), rows);
          case 128:
            return set_words<Id, 2>(window, one_hot_.data(), rows);
          case 256:
            return set_words<Id, 4>(window, one_hot_.data(), rows);
          default:
            return set_bits<Id>(window, experts_, before, rows);
        }
      });
      rows[kRowBlockTokens] = BitRow{};
    }
  });
}

}  // namespace routestats
