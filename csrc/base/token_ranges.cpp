#include "base/token_ranges.hpp"

#include <algorithm>

namespace routestats {

std::vector<TokenRange> joined(std::vector<TokenRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const TokenRange& a, const TokenRange& b) { return a.first < b.first; });
  std::vector<TokenRange> joint;
  for (const TokenRange& range : ranges) {
    if (!joint.empty() && joint.back().first + joint.back().count == range.first) {
      joint.back().count += range.count;
    } else {
      joint.push_back(range);
    }
  }
  return joint;
}

std::vector<std::vector<TokenRange>> batches_of(std::span<const TokenRange> ranges,
                                                std::size_t most) {
  std::vector<std::vector<TokenRange>> batches;
  std::size_t room = 0;  // in the last batch
  for (auto [first, count] : ranges) {
    while (count > 0) {
      if (room == 0) {
        batches.emplace_back();
        room = most;
      }
      const std::size_t taken = std::min(count, room);
      batches.back().push_back({first, taken});
      first += taken;
      count -= taken;
      room -= taken;
    }
  }
  return batches;
}

}  // namespace routestats
