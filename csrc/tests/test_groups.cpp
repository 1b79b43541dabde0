// Compares permutations within groups, and sums without groups, with naive oracles.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "groups/group_sums.hpp"
#include "groups/row_shuffle.hpp"

namespace routestats {
namespace {

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

template <class Error, class Body>
void require_throws(const Body& body, const std::string& what) {
  try {
    body();
  } catch (const Error&) {
    return;
  }
  require(false, what + ": nothing thrown");
}

std::vector<std::uint32_t> numbers(std::size_t count) {
  std::vector<std::uint32_t> rows(count);
  for (std::size_t i = 0; i < count; ++i) rows[i] = static_cast<std::uint32_t>(i);
  return rows;
}

void test_shuffle() {
  const auto rows = numbers(1000);
  const std::vector<std::uint64_t> starts{0, 0, 1, 500, 502, 502, 1000};
  const auto shuffled = [&](ShuffleSeed seed, unsigned threads) {
    std::vector<std::uint32_t> orders(3 * rows.size());
    shuffle_rows(rows, starts, seed, 3, orders.data(), threads);
    return orders;
  };
  const auto orders = shuffled({7, 1}, 1);
  for (std::size_t l = 0; l < 3; ++l) {
    for (std::size_t c = 0; c + 1 < starts.size(); ++c) {
      std::vector<std::uint32_t> part(orders.begin() + static_cast<long>(l * 1000 + starts[c]),
                                      orders.begin() + static_cast<long>(l * 1000 + starts[c + 1]));
      std::sort(part.begin(), part.end());
      for (std::size_t i = 0; i < part.size(); ++i) {
        require(part[i] == starts[c] + i, "a class keeps its rows");
      }
    }
  }
  require(!std::equal(orders.begin(), orders.begin() + 1000, orders.begin() + 1000),
          "layers differ");
  require(orders == shuffled({7, 1}, 4), "threads change nothing");
  require(orders != shuffled({8, 1}, 1) && orders != shuffled({7, 2}, 1), "seed and stream do");
  require(orders != shuffled({7, 1, 1}, 1), "the number of a class does");
  for (const auto& wrong : {std::vector<std::uint64_t>{}, {1, 1000}, {0, 999}, {0, 5, 4, 1000}}) {
    std::vector<std::uint32_t> out(1000);
    require_throws<std::invalid_argument>(
        [&] { shuffle_rows(rows, wrong, {0, 0}, 1, out.data(), 1); }, "starts");
  }
}

struct Case {
  std::size_t tokens, layers, experts, slots, groups;
  bool permuted;
};

double n_log2_n(double n) { return n > 0 ? n * std::log2(n) : 0.0; }

// Sum of n log2 n over the cells of one pair of layers, or over the margin of layer a if a == b and
// `margin`, for all entries that are not in group `without`.
double naive_sum(const std::vector<std::uint16_t>& ids, const Case& c,
                 const std::vector<std::uint32_t>& rows, const std::vector<std::uint64_t>& starts,
                 std::size_t a, std::size_t b, bool margin, std::size_t without) {
  std::map<std::pair<int, int>, double> cells;
  for (std::size_t g = 0; g + 1 < starts.size(); ++g) {
    if (g == without) continue;
    for (std::size_t i = starts[g]; i < starts[g + 1]; ++i) {
      const auto at = [&](std::size_t l, std::size_t k) {
        const std::size_t row = rows[(c.permuted ? l * c.tokens : 0) + i];
        return int{ids[(row * c.layers + l) * c.slots + k]};
      };
      for (std::size_t j = 0; j < c.slots; ++j) {
        for (std::size_t k = 0; k < c.slots; ++k) {
          cells[{at(a, j), margin ? 0 : at(b, k)}] += 1;
        }
      }
    }
  }
  double sum = 0;
  for (const auto& cell : cells) sum += n_log2_n(cell.second);
  return sum;
}

void test_sums(const Case& c, std::mt19937& random) {
  std::vector<std::uint16_t> ids(c.tokens * c.layers * c.slots);
  std::uniform_int_distribution<int> expert(0, static_cast<int>(c.experts) - 1);
  for (auto& id : ids) id = static_cast<std::uint16_t>(expert(random));
  std::vector<std::uint64_t> starts{0, c.tokens};
  std::uniform_int_distribution<std::uint64_t> place(0, c.tokens);
  for (std::size_t g = 1; g < c.groups; ++g) starts.push_back(place(random));
  std::sort(starts.begin(), starts.end());
  std::vector<std::uint32_t> rows;
  for (std::size_t l = 0; l < (c.permuted ? c.layers : 1); ++l) {
    auto order = numbers(c.tokens);
    std::shuffle(order.begin(), order.end(), random);
    rows.insert(rows.end(), order.begin(), order.end());
  }
  std::vector<LayerPair> pairs;
  for (std::uint32_t a = 0; a < c.layers; ++a) {
    for (std::uint32_t b = a; b < c.layers; ++b) pairs.push_back({a, b});
  }
  constexpr std::ptrdiff_t item = sizeof(std::uint16_t);
  const auto slots = static_cast<std::ptrdiff_t>(c.slots);
  const ExpertView view{reinterpret_cast<const std::byte*>(ids.data()),
                        sizeof(std::uint16_t),
                        false,
                        c.tokens,
                        c.layers,
                        c.slots,
                        item * slots * static_cast<std::ptrdiff_t>(c.layers),
                        item * slots,
                        item};
  std::vector<std::uint64_t> by_expert(c.layers * c.experts);
  std::vector<std::uint64_t> tables(pairs.size() * c.experts * c.experts);
  CountOptions options;
  options.threads = 2;
  CountOptions counting = options;
  if (c.permuted) counting.row_order = RowOrder{rows.data(), c.tokens};
  count_pairs(view, c.experts, pairs, {by_expert.data(), tables.data()}, counting);

  const std::size_t groups = starts.size() - 1;
  const GroupedRows grouped{rows.data(), c.permuted ? c.tokens : 0, starts};
  std::vector<double> got_pairs(groups * pairs.size());
  std::vector<double> got_layers(groups * c.layers);
  const auto run = [&] {
    sum_changes_without_groups(view, c.experts, pairs, grouped, {by_expert.data(), tables.data()},
                               {got_pairs.data(), got_layers.data()}, options);
  };
  run();
  const auto check = [&](double got, std::size_t a, std::size_t b, bool margin, std::size_t g) {
    const double expected = naive_sum(ids, c, rows, starts, a, b, margin, g) -
                            naive_sum(ids, c, rows, starts, a, b, margin, groups);
    require(std::abs(got - expected) < 1e-8, "layers " + std::to_string(a) + ", " +
                                                 std::to_string(b) + " without group " +
                                                 std::to_string(g));
  };
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t p = 0; p < pairs.size(); ++p) {
      check(got_pairs[g * pairs.size() + p], pairs[p].source, pairs[p].target, false, g);
    }
    for (std::size_t l = 0; l < c.layers; ++l) check(got_layers[g * c.layers + l], l, l, true, g);
  }
  if (c.tokens == 0) return;
  rows.back() = static_cast<std::uint32_t>(c.tokens);
  require_throws<std::invalid_argument>(run, "a row that is not there");
  rows.back() = 0;
  std::fill(tables.begin(), tables.end(), 0);
  require_throws<std::invalid_argument>(run, "counts of fewer entries");
}

// Places are drawn from 32 bits: rows beyond would never move.
void test_too_many_rows() {
  const std::size_t many = std::size_t{1} << 32;
  const std::uint32_t row = 0;
  const std::vector<std::uint64_t> starts{0, many};
  require_throws<std::length_error>(
      [&] { shuffle_rows({&row, many}, starts, {1, 2}, 0, nullptr, 1); }, "2^32 rows");
}

// Then no table has cells, and nothing may be divided by their number.
void test_no_experts() {
  const ExpertView view{nullptr, 1, false, 0, 2, 1, 2, 1, 1};
  const std::vector<std::uint64_t> starts{0};
  require_throws<std::invalid_argument>(
      [&] {
        sum_changes_without_groups(view, 0, {}, {nullptr, 0, starts}, {nullptr, nullptr},
                                   {nullptr, nullptr}, {});
      },
      "no experts");
}

}  // namespace
}  // namespace routestats

int main() {
  routestats::test_shuffle();
  routestats::test_too_many_rows();
  routestats::test_no_experts();
  std::mt19937 random(11);
  for (const bool permuted : {false, true}) {
    for (const auto& [tokens, layers, experts, slots, groups] :
         {std::tuple{0, 2, 3, 1, 1}, std::tuple{1, 1, 1, 1, 1}, std::tuple{90, 3, 8, 2, 7},
          std::tuple{200, 2, 40, 6, 3}, std::tuple{64, 3, 700, 2, 9}}) {
      const auto size = [](int n) { return static_cast<std::size_t>(n); };
      routestats::test_sums(
          {size(tokens), size(layers), size(experts), size(slots), size(groups), permuted}, random);
    }
  }
  std::puts("ok");
  return 0;
}
