#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.hpp"
#include "base/expert_view.hpp"
#include "paths/first_choices.hpp"
#include "paths/set_sort.hpp"

namespace routestats {

// The path of a token is made of its first choices, or of its sets of choices. In a set the order
// within a layer does not matter.
enum class PathKind { top1, set };

// A path as a key of 64-bit words: one layer after the other from the most significant bits down.
// Keys compare as their paths do lexicographically (a set as its ids in ascending order).
//
// A first choice takes as few bits as an id needs, but 8 instead of 7. A set takes a mask of one
// bit per expert if that is no longer than its ids in bytes; else its sorted ids in 8 or 16 bits
// each. A field lies in one word.
class PathCodec {
 public:
  // `slots` is K, also for top1. Throws std::invalid_argument if an argument is 0 or too large.
  PathCodec(PathKind kind, std::size_t experts, std::size_t slots, std::size_t layers, Isa isa);

  std::size_t words() const { return words_; }
  std::size_t ids_per_layer() const { return kind_ == PathKind::top1 ? 1 : slots_; }
  std::size_t ids_per_path() const { return layers_ * ids_per_layer(); }
  std::size_t layers() const { return layers_; }

  // Writes the keys [tokens, words] of a view of `layers` layers, whose ids are checked already.
  // Returns false, with unspecified keys, if a set names an expert twice.
  bool pack(const ExpertView& view, std::uint64_t* keys) const;

  // Writes ids_per_path() ids; those of a set are in ascending order.
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
  // Null if this shape has none.
  SetSort sort_ = nullptr;
  FirstChoices choose_ = nullptr;
};

}  // namespace routestats
