#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace routestats {

// Some tokens of a view that follow each other.
struct TokenRange {
  std::size_t first;
  std::size_t count;
  bool operator==(const TokenRange&) const = default;
};

// Disjoint ranges in ascending order, those that meet as one.
std::vector<TokenRange> joined(std::vector<TokenRange> ranges);

// All their tokens in the same order, in batches of `most` tokens and one of what is left.
std::vector<std::vector<TokenRange>> batches_of(std::span<const TokenRange> ranges,
                                                std::size_t most);

}  // namespace routestats
