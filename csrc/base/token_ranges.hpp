#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace routestats {

// Consecutive tokens of a view.
struct TokenRange {
  std::size_t first;
  std::size_t count;
  bool operator==(const TokenRange&) const = default;
};

// The same tokens as disjoint ranges in ascending order; ranges that touch become one.
std::vector<TokenRange> joined(std::vector<TokenRange> ranges);

// The same tokens in the same order, in batches of `most` tokens. The last batch has the rest.
std::vector<std::vector<TokenRange>> batches_of(std::span<const TokenRange> ranges,
                                                std::size_t most);

}  // namespace routestats
