#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace routestats {

// The tokens of a block that chose each expert of a layer, each as the place of its row:
// `row_words` from one token to the next. Lists are ascending and padded, to a multiple of
// kListStep, with the place behind the last row that `max_tokens` tokens have.
class BlockLists {
 public:
  BlockLists(std::size_t experts, std::size_t slots, std::size_t max_tokens, std::size_t row_words);

  // Takes the ids of one layer, [tokens, slots], distinct within a token, in place of what was
  // there.
  void fill(const std::uint16_t* ids, std::size_t tokens);

  std::size_t length(std::size_t expert) const { return ends_[expert] - expert * room_; }
  std::span<const std::uint16_t> padded(std::size_t expert) const;

 private:
  const std::size_t experts_;
  const std::size_t slots_;
  const std::size_t room_;  // entries from one list to the next
  const std::size_t row_words_;
  const std::uint16_t padding_;
  std::unique_ptr<std::uint16_t[]> entries_;
  std::vector<std::uint32_t> ends_;
};

}  // namespace routestats
