#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "paths/key_arena.hpp"

namespace routestats {

// A 64-bit hash of a key. The upper bits choose a partition; the lower 32 bits are the fingerprint.
std::uint64_t hash_key(const std::uint64_t* key, std::size_t words);

struct KeyRef {
  const std::uint64_t* key;
  std::uint32_t fingerprint;
  std::uint64_t count;
};

// Distinct keys with exact counts. A slot holds a fingerprint; if it agrees, the key itself is
// compared. For one thread.
class PathTable {
 public:
  // Keys lie in `arena`, which must live longer than the table.
  PathTable(std::size_t words, KeyArena& arena);

  // Makes room for `keys` distinct keys. This may be a guess: the table grows when it must.
  void reserve(std::size_t keys);

  // Adds each count to its key. New keys are copied. Batches of this size are best: enough for
  // prefetching, few enough for the first-level cache.
  void add(std::span<const KeyRef> refs);
  static constexpr std::size_t kBatch = 256;

  std::size_t size() const { return size_; }
  std::uint64_t count(std::size_t i) const { return counts_[i]; }
  std::span<const std::uint64_t> counts() const { return {counts_, size_}; }
  const std::uint64_t* key(std::size_t i) const {
    return chunks_[i >> chunk_shift_] + (i & chunk_mask_) * words_;
  }

 private:
  template <std::size_t kWords>
  void add_one(const KeyRef& ref);
  template <std::size_t kWords>
  void append(const KeyRef& ref);
  void prefetch_slots(std::span<const KeyRef> refs) const;
  void prefetch_known(const KeyRef& ref) const;
  void resize(std::size_t slots);

  std::size_t words_;
  KeyArena* arena_;
  unsigned chunk_shift_;
  std::size_t chunk_mask_;
  // The fingerprint in the upper bits, the number of the key + 1 in the lower ones; 0 is free. The
  // number of slots is a power of two, and at most half of them are taken. Slots and counts lie in
  // the arena.
  std::span<std::uint64_t> slots_;
  std::uint64_t* counts_ = nullptr;  // by number of the key; one more than half the slots
  std::size_t size_ = 0;
  std::vector<std::uint64_t*> chunks_;  // keys never move
};

}  // namespace routestats
