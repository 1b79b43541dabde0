// Compares windows and cache with a naive oracle, over shapes, runs and threads.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "groups/segments.hpp"

namespace routestats {
namespace {

struct Shape {
  std::size_t tokens;
  std::size_t layers;
  std::size_t experts;
  std::size_t slots;
};

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

ExpertView view_of(const std::vector<std::uint16_t>& ids, const Shape& shape) {
  constexpr std::ptrdiff_t item = sizeof(std::uint16_t);
  const auto slots = static_cast<std::ptrdiff_t>(shape.slots);
  const auto layers = static_cast<std::ptrdiff_t>(shape.layers);
  return {reinterpret_cast<const std::byte*>(ids.data()),
          sizeof(std::uint16_t),
          false,
          shape.tokens,
          shape.layers,
          shape.slots,
          item * slots * layers,
          item * slots,
          item};
}

std::vector<std::uint16_t> random_ids(const Shape& shape, std::mt19937& random) {
  std::vector<std::uint16_t> urn(shape.experts);
  for (std::size_t e = 0; e < shape.experts; ++e) urn[e] = static_cast<std::uint16_t>(e);
  std::vector<std::uint16_t> ids;
  for (std::size_t row = 0; row < shape.tokens * shape.layers; ++row) {
    std::shuffle(urn.begin(), urn.end(), random);
    ids.insert(ids.end(), urn.begin(), urn.begin() + static_cast<std::ptrdiff_t>(shape.slots));
  }
  return ids;
}

struct Tables {
  std::vector<std::uint64_t> uses;
  std::vector<std::uint64_t> hits;
  bool operator==(const Tables&) const = default;
};

Tables naive(const std::vector<std::uint16_t>& ids, const Shape& shape,
             const std::vector<std::int64_t>& starts, std::size_t m, std::size_t capacity) {
  Tables tables{std::vector<std::uint64_t>(shape.layers * (m + 1)),
                std::vector<std::uint64_t>(shape.layers)};
  for (std::size_t l = 0; l < shape.layers; ++l) {
    const auto chosen = [&](std::size_t t) {
      const auto* row = ids.data() + (t * shape.layers + l) * shape.slots;
      return std::set<int>(row, row + shape.slots);
    };
    for (std::size_t r = 0; r + 1 < starts.size(); ++r) {
      const auto first = static_cast<std::size_t>(starts[r]);
      const auto last = static_cast<std::size_t>(starts[r + 1]);
      for (std::size_t w = first; w + m <= last; ++w) {
        for (int e = 0; e < static_cast<int>(shape.experts); ++e) {
          std::size_t count = 0;
          for (std::size_t t = w; t < w + m; ++t) count += chosen(t).count(e);
          ++tables.uses[l * (m + 1) + count];
        }
      }
      std::set<int> cache;
      for (std::size_t t = first; t < last; ++t) {
        std::map<int, int> ahead;
        for (std::size_t u = t + 1; u < std::min(last, t + 1 + m); ++u) {
          for (const int e : chosen(u)) ++ahead[e];
        }
        for (const int e : chosen(t)) tables.hits[l] += cache.count(e);
        cache.merge(chosen(t));
        while (cache.size() > capacity) {
          cache.erase(*std::min_element(cache.begin(), cache.end(), [&](int a, int b) {
            return ahead[a] != ahead[b] ? ahead[a] < ahead[b] : a > b;
          }));
        }
      }
    }
  }
  return tables;
}

void test_shapes() {
  std::mt19937 random(5);
  for (const Shape& shape : {Shape{0, 2, 4, 2}, Shape{1, 1, 1, 1}, Shape{60, 3, 8, 2},
                             Shape{80, 2, 30, 8}, Shape{40, 1, 300, 4}}) {
    const auto ids = random_ids(shape, random);
    const auto n = static_cast<std::int64_t>(shape.tokens);
    const std::vector<std::int64_t> starts{0, n / 3, n / 3, n / 2, n};
    const std::vector<std::int64_t> groups(starts.size() - 1, 0);
    std::vector<std::int64_t> tokens(shape.tokens);
    for (std::size_t t = 0; t < shape.tokens; ++t) tokens[t] = static_cast<std::int64_t>(t);
    for (const std::size_t m : {1u, 5u, 100u}) {
      for (const std::size_t capacity : {1u, 2u, 9u}) {
        const Tables expected = naive(ids, shape, starts, m, capacity);
        for (const unsigned threads : {1u, 3u}) {
          Tables got{std::vector<std::uint64_t>(expected.uses.size()),
                     std::vector<std::uint64_t>(expected.hits.size())};
          count_segments(view_of(ids, shape), shape.experts, {tokens, starts, groups}, m, capacity,
                         {1, got.uses.data(), got.hits.data()}, threads);
          require(got == expected,
                  "T=" + std::to_string(shape.tokens) + " E=" + std::to_string(shape.experts) +
                      " m=" + std::to_string(m) + " capacity=" + std::to_string(capacity));
        }
      }
    }
  }
}

// Runs may share tokens, which count as copies would.
void test_shared_tokens() {
  std::mt19937 random(9);
  const Shape shape{10, 2, 6, 2};
  const auto ids = random_ids(shape, random);
  const std::vector<std::int64_t> tokens{0, 1, 2, 2, 3, 3, 4, 2}, starts{0, 3, 6, 8}, groups(3, 0);
  std::vector<std::uint16_t> copy;
  for (const std::int64_t token : tokens) {
    const auto first =
        ids.begin() + token * static_cast<std::ptrdiff_t>(shape.layers * shape.slots);
    copy.insert(copy.end(), first, first + static_cast<std::ptrdiff_t>(shape.layers * shape.slots));
  }
  const Tables expected = naive(copy, {tokens.size(), 2, 6, 2}, starts, 2, 2);
  Tables got{std::vector<std::uint64_t>(expected.uses.size()),
             std::vector<std::uint64_t>(expected.hits.size())};
  count_segments(view_of(ids, shape), shape.experts, {tokens, starts, groups}, 2, 2,
                 {1, got.uses.data(), got.hits.data()}, 1);
  require(got == expected, "tokens that several runs share");
}

}  // namespace
}  // namespace routestats

int main() {
  routestats::test_shapes();
  routestats::test_shared_tokens();
  std::puts("ok");
  return 0;
}
