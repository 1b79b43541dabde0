#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"
#include "base/expert_view.hpp"
#include "paths/first_choices.hpp"
#include "paths/set_sort.hpp"

namespace routestats {

// What a token's path through the layers is made of: its first choices, or its sets of choices, in
// which the order within a layer does not matter.
enum class PathKind { top1, set };

// A path as a key of 64-bit words, one layer after the other from the most significant bits down,
// so that keys compare as the paths do lexicographically (a set as its ids in ascending order).
//
// A first choice takes as few bits as an id needs, but 8 instead of 7. A set takes a mask of one
// bit per expert where that is no longer than its ids in bytes, and its sorted ids in 8 or 16 bits
// each otherwise. No field straddles two words.
class PathCodec {
 public:
  // `slots` is K, also for top1. Throws std::invalid_argument where something is 0 or too large.
  PathCodec(PathKind kind, std::size_t experts, std::size_t slots, std::size_t layers, Isa isa);

  std::size_t words() const { return words_; }
  std::size_t ids_per_layer() const { return kind_ == PathKind::top1 ? 1 : slots_; }
  std::size_t ids_per_path() const { return layers_ * ids_per_layer(); }
  std::size_t layers() const { return layers_; }

  // Writes the keys [tokens, words] of a view of `layers` layers whose ids are checked already.
  // Returns false, and leaves the keys unspecified, where a set names an expert twice.
  bool pack(const ExpertView& view, std::uint64_t* keys) const;

  // Writes ids_per_path() ids, those of a set in ascending order.
  void unpack(const std::uint64_t* key, std::uint16_t* ids) const;

 private:
  enum class Code { first_choice, mask, sorted_ids };

  bool pack_sorted(const ExpertView& view, std::uint64_t* keys) const;

  PathKind kind_;
  std::size_t experts_;
  std::size_t slots_;
  std::size_t layers_;
  Code code_;
  unsigned bits_;         // of a field
  std::size_t per_word_;  // fields
  std::size_t words_;
  // Null where there is none for this shape.
  SetSort sort_ = nullptr;
  FirstChoices choose_ = nullptr;
};

}  // namespace routestats
