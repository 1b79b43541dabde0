#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "bits/bit_rows.hpp"
#include "bits/row_sums.hpp"
#include "bits/token_lists.hpp"
#include "pairs/count_job.hpp"

namespace routestats {

// The counts of a segment fit the planes, padding included.
inline constexpr std::size_t kMostSegmentTokens = 262'144;

// For each expert of a source layer, sums the rows of bits of the tokens that chose it. A row holds
// 512 columns of target layers, and one vector operation advances all of them.
class ListCounter {
 public:
  ListCounter(const CountJob& job, std::size_t max_tokens, Isa isa);

  // Adds nothing and returns false if a token names an expert twice at one layer.
  bool add(const ExpertView& segment);

 private:
  // Columns of a group that belong to one pair of the plan.
  struct Part {
    std::size_t pair;
    std::size_t first_expert;
    std::size_t column;
    std::size_t count;
  };
  // 512 columns, and the parts of them that each source layer needs.
  struct Group {
    std::size_t first_column;
    std::map<std::size_t, std::vector<Part>> sources;
  };

  // The work of one claim: some source layers of a group, and of each the experts
  // first_expert..last_expert - 1.
  struct Item {
    std::size_t first_column;
    std::vector<std::pair<std::size_t, const std::vector<Part>*>> sources;
    std::size_t first_expert;
    std::size_t last_expert;
  };

  // The memory of a worker: the rows of a block, and for each source layer and expert of its item
  // `stride` bit-sliced planes and the number of rows that they sum, padding included.
  struct Worker {
    BitRows rows;
    std::size_t stride;
    std::vector<BitRow> planes;
    std::vector<std::size_t> summed;
  };

  void make_items();
  void sum(const ExpertView& segment, const Item& item, Worker& worker) const;
  void add_counts(const Item& item, const Worker& worker) const;

  const CountJob& job_;
  const RowSums sums_;
  TokenLists lists_;
  std::vector<Group> groups_;
  std::vector<Item> items_;
};

// Tokens of a segment. They bound the memory of its lists.
std::size_t list_segment_tokens(const CountJob& job);

}  // namespace routestats
