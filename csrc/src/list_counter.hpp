#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "count_job.hpp"
#include "routestats/bit_rows.hpp"
#include "routestats/row_sums.hpp"
#include "routestats/token_lists.hpp"

namespace routestats {

// A segment's counts fit the planes, padding included.
inline constexpr std::size_t kMostSegmentTokens = 262'144;

// Counts by summing, for each expert of a source layer, the bit rows of the tokens that chose it:
// a row holds 512 columns of target layers, and a vector operation advances all of them.
class ListCounter {
 public:
  ListCounter(const CountJob& job, std::size_t max_tokens, Isa isa);

  // Adds nothing and returns false where a token names an expert twice at one layer.
  bool add(const ExpertView& segment);

 private:
  // Columns of a group that belong to one pair of the plan.
  struct Part {
    std::size_t pair;
    std::size_t first_expert;
    std::size_t column;
    std::size_t count;
  };
  // 512 columns, and the parts that each source layer needs of them.
  struct Group {
    std::size_t first_column;
    std::map<std::size_t, std::vector<Part>> sources;
  };

  // Bit-sliced counters, `stride` planes for each of some source experts.
  struct Counters {
    std::size_t stride;
    std::vector<BitRow> planes;
  };

  void add_group(const Group& group, std::size_t tokens);
  void add_experts(std::size_t layer, const std::vector<Part>& parts, std::size_t first,
                   std::size_t last, Counters& counters);

  const CountJob& job_;
  const RowSums sums_;
  TokenLists lists_;
  BitRows rows_;
  std::vector<Group> groups_;
};

// The longest segment whose lists stay in bounded memory.
std::size_t list_segment_tokens(std::size_t layers, std::size_t slots);

}  // namespace routestats
