#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "paths/key_arena.hpp"

namespace routestats {

// A 64-bit hash of a key. Its upper bits choose a partition, its lower 32 bits are the fingerprint.
std::uint64_t hash_key(const std::uint64_t* key, std::size_t words);

struct KeyRef {
  const std::uint64_t* key;
  std::uint32_t fingerprint;
  std::uint64_t count;
};

// Distinct keys with their counts, exactly: a slot holds a fingerprint, and where that agrees the
// key itself is compared. For one thread.
class PathTable {
 public:
  // Keys are kept in `arena`, which must outlive the table.
  PathTable(std::size_t words, KeyArena& arena);

  // Makes room for so many distinct keys. A guess: whatever comes, the table grows as it must.
  void reserve(std::size_t keys);

  // Adds each count to its key. The keys are copied where they are new. References are best handed
  // over in such batches: enough to ask for memory ahead, few enough for the first-level cache.
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
  // Fingerprint above, number of the key + 1 below; 0 is free. A power of two of them, of which at
  // most half are taken. They and the counts are the arena's memory.
  std::span<std::uint64_t> slots_;
  std::uint64_t* counts_ = nullptr;  // by number, for one more than half the slots
  std::size_t size_ = 0;
  std::vector<std::uint64_t*> chunks_;  // keys never move
};

}  // namespace routestats
