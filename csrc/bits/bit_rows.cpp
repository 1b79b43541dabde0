#include "bits/bit_rows.hpp"

#include <algorithm>

#include "bits/layer_bits.hpp"
#include "bits/token_lists.hpp"

namespace routestats {
namespace {

// `before` is the number of columns between the first column of the window and the first column of
// the rows. A column of another group wraps around to a number that is too large.
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

// The same for layers that fill whole words of a row. The words are put together in registers: bits
// that are set one by one in the same word of memory wait for each other. FixedSlots = 0 reads the
// number and the stride of the slots at run time. The common numbers are compiled in, for slots
// that lie side by side.
template <class Id, std::size_t LayerWords, std::size_t FixedSlots>
void set_words(const ExpertView& window, const std::uint64_t* one_hot, BitRow* rows) {
  using Bits [[gnu::vector_size(LayerWords * sizeof(std::uint64_t))]] = std::uint64_t;
  const std::size_t slots = FixedSlots != 0 ? FixedSlots : window.slots;
  const std::ptrdiff_t stride = FixedSlots != 0 ? sizeof(Id) : window.slot_stride;
  const std::ptrdiff_t layer_stride = window.layer_stride;
  const bool reordered = window.row_order != nullptr;
  for (std::size_t t = 0; t < window.tokens; ++t) {
    __builtin_prefetch(window.row_ahead(t, 0));
    std::uint64_t* words = rows[t].words;
    const std::byte* row = window.row(t, 0);
    for (std::size_t l = 0; l < window.layers; ++l, words += LayerWords, row += layer_stride) {
      if (reordered) row = window.row(t, l);
      const std::byte* slot = row;
      Bits bits{};
      for (std::size_t k = 0; k < slots; ++k, slot += stride) {
        Id id;
        std::memcpy(&id, slot, sizeof id);
        Bits own;
        std::memcpy(&own, one_hot + std::size_t{id} * LayerWords, sizeof own);
        bits |= own;
      }
      std::memcpy(words, &bits, sizeof bits);
    }
    std::fill(words, rows[t].words + kRowWords, std::uint64_t{0});
  }
}

template <class Id, std::size_t LayerWords>
void set_words(const ExpertView& window, const std::uint64_t* one_hot, BitRow* rows) {
  if (window.slot_stride == sizeof(Id)) {
    if (window.slots == 4) return set_words<Id, LayerWords, 4>(window, one_hot, rows);
    if (window.slots == 6) return set_words<Id, LayerWords, 6>(window, one_hot, rows);
    if (window.slots == 8) return set_words<Id, LayerWords, 8>(window, one_hot, rows);
  }
  set_words<Id, LayerWords, 0>(window, one_hot, rows);
}

bool layers_fill_words(std::size_t experts) {
  return experts == 64 || experts == 128 || experts == 256;
}

}  // namespace

BitRows::BitRows(std::size_t experts)
    : experts_(experts),
      one_hot_(layers_fill_words(experts) ? one_hot_words(experts) : std::vector<std::uint64_t>{}),
      rows_(std::make_unique_for_overwrite<BitRow[]>(kRowBlockTokens + 1)) {
  rows_[kRowBlockTokens] = BitRow{};
}

void BitRows::fill(const ExpertView& block, std::size_t first_column) {
  const std::size_t first_layer = first_column / experts_;
  const std::size_t last_layer =
      std::min(block.layers, (first_column + kRowColumns - 1) / experts_ + 1);
  const std::size_t before = first_column - first_layer * experts_;
  const ExpertView window = block.layers_from(first_layer, last_layer - first_layer);
  BitRow* rows = rows_.get();
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
}

}  // namespace routestats
