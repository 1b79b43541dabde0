#pragma once

#include <cstdint>

#include "base/host_device.hpp"
#include "cuda/device_ids.hpp"

// Exact counts of paths in a hash table, one thread per row. nvcc compiles it for the device, the
// tests compile it for the host. A path is a key of ids, one or two bytes each, in whole 32-bit
// words. The table finds a key by its hash and a fingerprint, and then compares the whole key, so
// it never takes two paths for one.
namespace routestats {

struct PathWindow {
  std::uint32_t first_layer;
  std::uint32_t layers;
  std::uint32_t slots;  // of each layer: 1 for first choices, K for sets
  std::uint32_t id_bytes;

  ROUTESTATS_HOST_DEVICE constexpr std::uint32_t ids() const { return layers * slots; }
  ROUTESTATS_HOST_DEVICE constexpr std::uint32_t words() const {
    return (ids() * id_bytes + 3) / 4;
  }
};

// One thread per row, layer of the window and slot: writes the id to its place in the ascending
// order of its set. `key` is zero before, so that its padding is zero.
ROUTESTATS_HOST_DEVICE inline void write_key_id(const IdView& view, const PathWindow& window,
                                                std::uint64_t row, std::uint32_t layer,
                                                std::uint32_t slot, std::uint32_t* key) {
  const std::uint32_t source = window.first_layer + layer;
  const std::uint64_t id = view.load(row, source, slot);
  std::uint32_t rank = 0;
  for (std::uint32_t other = 0; other < window.slots; ++other) {
    const std::uint64_t that = view.load(row, source, other);
    rank += that < id || (that == id && other < slot) ? 1u : 0u;
  }
  const std::uint32_t place = layer * window.slots + rank;
  if (window.id_bytes == 1) {
    reinterpret_cast<std::uint8_t*>(key)[place] = static_cast<std::uint8_t>(id);
  } else {
    reinterpret_cast<std::uint16_t*>(key)[place] = static_cast<std::uint16_t>(id);
  }
}

ROUTESTATS_HOST_DEVICE inline std::uint64_t hash_of_key(const std::uint32_t* key,
                                                        std::uint32_t words) {
  std::uint64_t hash = 0x9e3779b97f4a7c15u;
  for (std::uint32_t i = 0; i < words; ++i) {
    hash = (hash ^ key[i]) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 32;
  }
  hash *= 0xc4ceb9fe1a85ec53u;
  return hash ^ hash >> 29;
}

// A table and its keys. The number of slots is a power of two. Keys have numbers: first those in
// the store, then those of the batch being counted. A slot is 0, or holds a fingerprint and the
// number of its key plus one.
struct PathTableView {
  std::uint64_t* slots;
  std::uint64_t* counts;
  std::uint64_t mask;  // slots - 1
  std::uint32_t* store;
  const std::uint32_t* batch;
  std::uint32_t stored;  // keys in the store before the batch
  std::uint32_t words;   // of a key

  ROUTESTATS_HOST_DEVICE const std::uint32_t* key(std::uint32_t number) const {
    return number < stored ? store + std::uint64_t{number} * words
                           : batch + std::uint64_t{number - stored} * words;
  }
};

ROUTESTATS_HOST_DEVICE constexpr std::uint64_t slot_of_key(std::uint64_t hash,
                                                           std::uint32_t number) {
  return (hash >> 32 << 32) | (number + 1u);
}
ROUTESTATS_HOST_DEVICE constexpr std::uint32_t key_of_slot(std::uint64_t slot) {
  return static_cast<std::uint32_t>(slot) - 1u;
}

// One thread per key `number`: adds `times` to its path. The table must have room for every key.
// `Atomics::swap(word, expected, desired)` is a compare-and-swap that returns the value before.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void count_key(const PathTableView& table, std::uint32_t number,
                                             std::uint64_t times) {
  const std::uint32_t* key = table.key(number);
  const std::uint64_t hash = hash_of_key(key, table.words);
  const std::uint64_t mine = slot_of_key(hash, number);
  for (std::uint64_t place = hash & table.mask;; place = (place + 1) & table.mask) {
    const std::uint64_t seen = Atomics::swap(table.slots + place, 0, mine);
    bool equal = seen == 0;
    if (!equal && seen >> 32 == hash >> 32) {
      const std::uint32_t* other = table.key(key_of_slot(seen));
      equal = true;
      for (std::uint32_t i = 0; equal && i < table.words; ++i) equal = key[i] == other[i];
    }
    if (equal) {
      Atomics::add(table.counts + place, times);
      return;
    }
  }
}

// After a batch, one thread per slot: a key of the batch moves into the store, whose length is
// `stored`. `Atomics::next(counter)` adds one and returns the value before.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void keep_key(const PathTableView& table, std::uint64_t place,
                                            std::uint32_t* stored) {
  const std::uint64_t slot = table.slots[place];
  if (slot == 0 || key_of_slot(slot) < table.stored) return;
  const std::uint32_t* key = table.key(key_of_slot(slot));
  const std::uint32_t number = Atomics::next(stored);
  for (std::uint32_t i = 0; i < table.words; ++i) {
    table.store[std::uint64_t{number} * table.words + i] = key[i];
  }
  table.slots[place] = slot_of_key(slot, number);
}

}  // namespace routestats
