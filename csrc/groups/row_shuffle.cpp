#include "groups/row_shuffle.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/workers.hpp"

namespace routestats {
namespace {

constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15;

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t state) : state_(state) {}

  // Evenly distributed over 0 .. bound - 1.
  std::uint32_t below(std::uint32_t bound) {
    std::uint64_t product = upper_half() * bound;
    if (static_cast<std::uint32_t>(product) < bound) {
      const std::uint32_t uneven = (0u - bound) % bound;
      while (static_cast<std::uint32_t>(product) < uneven) product = upper_half() * bound;
    }
    return static_cast<std::uint32_t>(product >> 32);
  }

 private:
  std::uint64_t upper_half() { return mix(state_ += kGamma) >> 32; }

  std::uint64_t state_;
};

}  // namespace

void check_starts(std::span<const std::uint64_t> starts, std::size_t entries) {
  if (starts.empty() || starts.front() != 0 || starts.back() != entries ||
      !std::is_sorted(starts.begin(), starts.end())) {
    throw std::invalid_argument("starts: expected ascending numbers from 0 to " +
                                std::to_string(entries));
  }
}

void shuffle_rows(std::span<const std::uint32_t> rows, std::span<const std::uint64_t> starts,
                  const ShuffleSeed& seed, std::size_t layers, std::uint32_t* orders,
                  unsigned threads) {
  check_starts(starts, rows.size());
  if (rows.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("rows: expected fewer than 2^32");
  }
  const std::uint64_t stream_key = mix(mix(seed.seed + kGamma) + seed.stream);
  run_workers(layers, threads, [&](ItemQueue& queue) {
    while (const auto layer = queue.next()) {
      const std::uint64_t layer_key = mix(stream_key + *layer);
      std::uint32_t* order = orders + *layer * rows.size();
      std::copy(rows.begin(), rows.end(), order);
      for (std::size_t g = 0; g + 1 < starts.size(); ++g) {
        SplitMix64 random(mix(layer_key + seed.first_group + g));
        std::uint32_t* entry = order + starts[g];
        for (auto n = static_cast<std::uint32_t>(starts[g + 1] - starts[g]); n > 1; --n) {
          std::swap(entry[n - 1], entry[random.below(n)]);
        }
      }
    }
  });
}

}  // namespace routestats
