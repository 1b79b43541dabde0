#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/expert_view.hpp"
#include "paths/key_arena.hpp"
#include "paths/path_codec.hpp"
#include "paths/path_table.hpp"

namespace routestats {

struct PathShape {
  PathKind kind;
  std::size_t experts;
  std::size_t slots;   // K of the views, also for top1
  std::size_t start;   // first layer of the window
  std::size_t length;  // layers of the window
  bool operator==(const PathShape&) const = default;
};

// Exact counts of the distinct paths through a window of layers. Memory holds the distinct paths
// and a block of tokens, not the trace. Hashes spread the paths over tables, and one thread at a
// time works on a table.
class PathCounts {
 public:
  explicit PathCounts(const PathShape& shape, Isa isa = best_isa());

  // Adds the paths of all tokens. Error messages call the first token `first_token`. Throws
  // ExpertOutOfRange for an id in any layer and slot, ExpertRepeated if a set of the window names
  // an expert twice, and std::invalid_argument for a view of another shape. After an error part of
  // the view is counted.
  void add(const ExpertView& view, std::uint64_t first_token, unsigned threads);

  // Adds all counts of `other`, which must have the same shape.
  void merge(const PathCounts& other, unsigned threads);

  const PathShape& shape() const { return shape_; }
  const PathCodec& codec() const { return codec_; }
  std::uint64_t tokens() const { return tokens_; }
  std::size_t distinct() const;

  // Each distinct path is in one of these.
  std::span<const PathTable> tables() const { return tables_; }

  struct Entry {
    std::uint64_t count;
    const std::uint64_t* key;  // valid until the counts change
  };
  // The `number` most frequent paths, or all, from the most frequent on; of equally frequent ones
  // the lexicographically smallest ones, in that order.
  std::vector<Entry> most_frequent(std::size_t number) const;

  // (count, number of paths with this count), from the largest count on.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> frequencies() const;

 private:
  template <class Item>
  Item* scratch(std::size_t items);
  void make_room(std::size_t tokens);
  // `packed` is memory for a slice of keys that are moved.
  void pack_slice(const ExpertView& slice, std::uint64_t first_token, std::size_t number,
                  std::uint64_t* packed);
  void count_partition(std::size_t part, std::size_t slices);
  [[noreturn]] void report(const ExpertView& slice, std::uint64_t first_token) const;

  PathShape shape_;
  PathCodec codec_;
  std::uint64_t tokens_ = 0;
  std::unique_ptr<KeyArena> arena_;  // stays in place when this object is moved
  std::vector<PathTable> tables_;
  std::size_t slice_tokens_;
  // The block that is being counted, in the memory of the arena.
  std::size_t block_slices_ = 0;  // slices that fit
  std::uint64_t* keys_ = nullptr;
  // The tokens of a slice by partition: their fingerprints, and the places of their keys.
  std::uint32_t* fingerprints_ = nullptr;
  std::uint16_t* places_ = nullptr;
  std::uint16_t* ends_ = nullptr;  // [slices, partitions + 1]
};

}  // namespace routestats
