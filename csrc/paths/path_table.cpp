#include "paths/path_table.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "paths/key_words.hpp"

namespace routestats {
namespace {

constexpr std::size_t kFirstSlots = 64;
constexpr std::size_t kChunkBytes = 32'768;
constexpr std::size_t kCacheLineWords = 8;
constexpr std::size_t kMaxPrefetchedWords = 64;
constexpr std::size_t kAhead = 32;  // keys

__extension__ using Wide = unsigned __int128;

// Folds the two halves of a full product, as wyhash does.
inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  const Wide product = Wide{a} * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

constexpr std::uint64_t kSalt[4] = {0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3,
                                    0x589965cc75374cc3};

}  // namespace

std::uint64_t hash_key(const std::uint64_t* key, std::size_t words) {
  // Four lanes, because each lane waits only for its own product.
  std::uint64_t lane[4] = {kSalt[1], kSalt[2], kSalt[3], kSalt[0]};
  std::size_t i = 0;
  for (; i + 8 <= words; i += 8) {
    for (std::size_t j = 0; j < 4; ++j) {
      lane[j] = fold(key[i + 2 * j] ^ kSalt[j], key[i + 2 * j + 1] ^ lane[j]);
    }
  }
  for (std::size_t j = 0; i + 2 <= words; i += 2, ++j) {
    lane[j] = fold(key[i] ^ kSalt[j], key[i + 1] ^ lane[j]);
  }
  if (i < words) lane[3] = fold(key[i] ^ kSalt[3], lane[3]);
  return fold(lane[0] ^ lane[1] ^ kSalt[0], std::rotl(lane[2], 32) ^ lane[3] ^ words);
}

PathTable::PathTable(std::size_t words, KeyArena& arena) : words_(words), arena_(&arena) {
  const std::size_t keys = std::max<std::size_t>(1, kChunkBytes / (words * sizeof(std::uint64_t)));
  chunk_shift_ = static_cast<unsigned>(std::bit_width(keys) - 1);
  chunk_mask_ = (std::size_t{1} << chunk_shift_) - 1;
}

void PathTable::reserve(std::size_t keys) {
  const std::size_t slots = std::bit_ceil(std::max(kFirstSlots, 2 * keys));
  if (slots > slots_.size()) resize(slots);
}

void PathTable::add(std::span<const KeyRef> refs) {
  if (slots_.empty()) resize(kFirstSlots);
  // Prefetches ahead of use: first the slots of a batch, while the batch before is added, then the
  // keys and counts that these slots name.
  const auto batch_from = [&](std::size_t first) {
    return refs.subspan(first, std::min(kAhead, refs.size() - first));
  };
  with_key_words(words_, [&](auto words) {
    prefetch_slots(batch_from(0));
    for (std::size_t first = 0; first < refs.size(); first += kAhead) {
      const auto batch = batch_from(first);
      for (const KeyRef& ref : batch) prefetch_known(ref);
      prefetch_slots(batch_from(std::min(first + kAhead, refs.size())));
      for (const KeyRef& ref : batch) add_one<words()>(ref);
    }
  });
}

void PathTable::prefetch_slots(std::span<const KeyRef> refs) const {
  for (const KeyRef& ref : refs) {
    __builtin_prefetch(&slots_[ref.fingerprint & (slots_.size() - 1)], 1);
    __builtin_prefetch(ref.key);
  }
}

void PathTable::prefetch_known(const KeyRef& ref) const {
  const std::uint64_t slot = slots_[ref.fingerprint & (slots_.size() - 1)];
  if (slot == 0 || slot >> 32 != ref.fingerprint) return;
  const std::size_t found = (slot & 0xffff'ffff) - 1;
  __builtin_prefetch(&counts_[found], 1);
  const std::uint64_t* known = key(found);
  const std::size_t words = std::min(words_, kMaxPrefetchedWords);
  for (std::size_t i = 0; i < words; i += kCacheLineWords) __builtin_prefetch(known + i);
  __builtin_prefetch(known + words - 1);  // a key may cross a cache line
}

// kWords is the number of words of a key if the compiler knows it, else 0.
template <std::size_t kWords>
void PathTable::add_one(const KeyRef& ref) {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t place = ref.fingerprint & mask;; place = (place + 1) & mask) {
    const std::uint64_t slot = slots_[place];
    if (slot == 0) {
      append<kWords>(ref);
      slots_[place] = std::uint64_t{ref.fingerprint} << 32 | size();
      if (2 * size() > slots_.size()) resize(2 * slots_.size());
      return;
    }
    if (slot >> 32 != ref.fingerprint) continue;
    const std::size_t found = (slot & 0xffff'ffff) - 1;
    const std::uint64_t* known = key(found);
    bool equal;
    if constexpr (kWords == 0) {
      equal = std::equal(ref.key, ref.key + words_, known);
    } else {
      std::uint64_t different = 0;
      for (std::size_t i = 0; i < kWords; ++i) different |= ref.key[i] ^ known[i];
      equal = different == 0;
    }
    if (equal) {
      counts_[found] += ref.count;
      return;
    }
  }
}

template <std::size_t kWords>
void PathTable::append(const KeyRef& ref) {
  const std::size_t i = size();
  if (i == std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("paths: more distinct ones than a table holds");
  }
  if (i >> chunk_shift_ == chunks_.size()) {
    chunks_.push_back(arena_->allocate((chunk_mask_ + 1) * words_));
  }
  counts_[size_++] = ref.count;
  std::uint64_t* to = chunks_.back() + (i & chunk_mask_) * words_;
  if constexpr (kWords == 0) {
    std::copy_n(ref.key, words_, to);
  } else {
    for (std::size_t w = 0; w < kWords; ++w) to[w] = ref.key[w];
  }
}

void PathTable::resize(std::size_t slots) {
  // The old ones stay in the arena; together they take no more than the new ones.
  const std::span<std::uint64_t> wider(arena_->allocate(slots), slots);
  std::uint64_t* counts = arena_->allocate(slots / 2 + 1);
  std::fill(wider.begin(), wider.end(), 0);
  std::copy_n(counts_, size_, counts);
  const std::size_t mask = slots - 1;
  for (const std::uint64_t slot : slots_) {
    if (slot == 0) continue;
    std::size_t place = (slot >> 32) & mask;
    while (wider[place] != 0) place = (place + 1) & mask;
    wider[place] = slot;
  }
  slots_ = wider;
  counts_ = counts;
}

}  // namespace routestats
