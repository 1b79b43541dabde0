#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace routestats {

// For each expert of a layer the tokens of a block that chose it. A token is given as the place of
// its row; rows lie `row_words` words apart. Lists are ascending. Their length is filled up to a
// multiple of kListStep with the place behind the last of `max_tokens` rows.
class BlockLists {
 public:
  BlockLists(std::size_t experts, std::size_t slots, std::size_t max_tokens, std::size_t row_words);

  // Replaces the content by the ids of one layer, [tokens, slots]. The ids of a token must be
  // distinct.
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
