#pragma once

#include <cstdint>
#include <vector>

#include "count_job.hpp"
#include "routestats/and_popcount.hpp"
#include "routestats/bit_columns.hpp"

namespace routestats {

// Counts by AND-popcount of bit columns.
class BitmapCounter {
 public:
  BitmapCounter(const CountJob& job, std::size_t max_tokens, Isa isa);

  // Adds nothing and returns false where a token names an expert twice at one layer: bits cannot
  // say how often.
  bool add(const ExpertView& block);

 private:
  void count_load();

  const CountJob& job_;
  const AndPopcount kernel_;
  BitColumns columns_;
  std::vector<std::uint64_t> load_;
};

}  // namespace routestats
