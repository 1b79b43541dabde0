#include "bits/token_lists.hpp"

#include <algorithm>
#include <atomic>

#include "base/layer_major.hpp"
#include "base/workers.hpp"
#include "bits/scatter_tokens.hpp"

namespace routestats {
namespace {

// Layers that one worker takes at a time: their ids of one token fill about one cache line.
constexpr std::size_t kWindowSlots = 64;
// Layers that lie a power of two apart would evict each other from the first-level cache.
constexpr std::size_t kApart = 96;
// Entries from one list to the next while they are made: one for each token of a block, and some
// more that keep the lists apart for the same reason.
constexpr std::size_t kRoom = kRowBlockTokens + 32;
static_assert(kRowBlockTokens % kListStep == 0);

std::size_t block_count(std::size_t tokens) {
  return (tokens + kRowBlockTokens - 1) / kRowBlockTokens;
}

std::uint32_t padded(std::uint32_t length) {
  constexpr std::uint32_t step = kListStep;
  return (length + step - 1) / step * step;
}

// A list is ascending, so an expert that a token names twice gives two equal neighbours.
bool repeats(const std::uint16_t* list, std::uint32_t length) {
  std::uint16_t found = 0;  // as narrow as the entries, so that a vector compares many of them
  for (std::uint32_t i = 1; i < length; ++i) {
    found |= static_cast<std::uint16_t>(list[i - 1] == list[i] ? 0xffff : 0);
  }
  return found != 0;
}

}  // namespace

TokenLists::TokenLists(std::size_t layers, std::size_t experts, std::size_t slots,
                       std::size_t max_tokens)
    : layers_(layers),
      experts_(experts),
      slots_(slots),
      capacity_(std::min(max_tokens, kRowBlockTokens) * slots + experts * (kListStep - 1)) {
  const std::size_t places = block_count(max_tokens) * layers;
  entries_ = std::make_unique_for_overwrite<std::uint16_t[]>(places * capacity_);
  begins_ = std::make_unique_for_overwrite<std::uint32_t[]>(places * (experts + 1));
  lengths_ = std::make_unique_for_overwrite<std::uint32_t[]>(places * experts);
}

bool TokenLists::fill(const ExpertView& segment, unsigned threads) {
  blocks_ = block_count(segment.tokens);
  const std::size_t window = std::clamp<std::size_t>(kWindowSlots / slots_, 1, layers_);
  const std::size_t windows = (layers_ + window - 1) / window;
  std::atomic<bool> distinct{true};
  run_workers(blocks_ * windows, threads, [&](ItemQueue& queue) {
    std::vector<std::uint16_t> ids(window * (kRowBlockTokens * slots_ + kApart));
    const auto lists = std::make_unique_for_overwrite<std::uint16_t[]>(experts_ * kRoom +
                                                                       kRowBlockTokens * slots_);
    while (const auto item = queue.next()) {
      const std::size_t block = *item / windows;
      const std::size_t first = block * kRowBlockTokens;
      const std::size_t layer = *item % windows * window;
      const std::size_t tokens = std::min(kRowBlockTokens, segment.tokens - first);
      const std::size_t count = std::min(window, layers_ - layer);
      copy_layer_major(segment.tokens_from(first, tokens).layers_from(layer, count), ids.data(),
                       tokens * slots_ + kApart);
      for (std::size_t l = 0; l < count; ++l) {
        const std::uint16_t* layer_ids = ids.data() + l * (tokens * slots_ + kApart);
        if (!fill_lists(block * layers_ + layer + l, layer_ids, tokens, lists.get()))
          distinct = false;
      }
    }
  });
  return distinct;
}

// Every list is first made in `scratch`, where it has room for all tokens of a block. So nothing
// has to be counted beforehand. If experts repeat, a list may run into the room of the next ones.
// There is enough memory behind the last one, and the length of the list shows it.
bool TokenLists::fill_lists(std::size_t place, const std::uint16_t* ids, std::size_t tokens,
                            std::uint16_t* scratch) {
  std::uint32_t* begin = begins_.get() + place * (experts_ + 1);
  std::uint32_t* length = lengths_.get() + place * experts_;
  // While a list is filled, begin[e] is where its next entry goes.
  for (std::size_t e = 0; e < experts_; ++e) begin[e] = static_cast<std::uint32_t>(e * kRoom);
  scatter_tokens(ids, tokens, slots_, kRowWords, begin, scratch);
  for (std::size_t e = 0; e < experts_; ++e) {
    length[e] = begin[e] - static_cast<std::uint32_t>(e * kRoom);
    if (length[e] > tokens) return false;
  }

  std::uint16_t* entries = entries_.get() + place * capacity_;
  std::uint32_t end = 0;
  bool distinct = true;
  for (std::size_t e = 0; e < experts_; ++e) {
    std::uint16_t* list = scratch + e * kRoom;
    distinct &= !repeats(list, length[e]);
    std::fill(list + length[e], list + padded(length[e]),
              static_cast<std::uint16_t>(kRowBlockTokens * kRowWords));
    std::copy_n(list, padded(length[e]), entries + end);
    begin[e] = end;
    end += padded(length[e]);
  }
  begin[experts_] = end;
  return distinct;
}

void TokenLists::add_load(std::size_t layer, std::uint64_t* load) const {
  for (std::size_t b = 0; b < blocks_; ++b) {
    const std::uint32_t* length = lengths_.get() + (b * layers_ + layer) * experts_;
    for (std::size_t e = 0; e < experts_; ++e) load[e] += length[e];
  }
}

}  // namespace routestats
