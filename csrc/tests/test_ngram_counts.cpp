// Compares n-gram counts with a naive oracle: all starts and lengths, ties, thresholds that prune.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "paths/ngram_counts.hpp"

namespace routestats {
namespace {

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

using Ids = std::vector<std::uint16_t>;

ExpertView view_of(const Ids& ids, std::size_t layers) {
  const auto row = static_cast<std::ptrdiff_t>(2 * layers);
  return {reinterpret_cast<const std::byte*>(ids.data()),
          2,
          false,
          ids.size() / layers,
          layers,
          1,
          row,
          2,
          2};
}

void compare(const Ids& ids, std::size_t layers, std::size_t experts, std::size_t top,
             const std::string& what) {
  NgramCounter counter(layers, experts);
  const ExpertView view = view_of(ids, layers);
  const std::size_t cut = view.tokens / 3;
  counter.add(view.tokens_from(0, cut), 0, 1);
  counter.add(view.tokens_from(cut, view.tokens - cut), cut, 3);
  const NgramTable got = counter.count(top, static_cast<unsigned>(top % 9 + 1));
  for (std::size_t start = 0; start < layers; ++start) {
    for (std::size_t n = 1; n <= layers - start; ++n) {
      std::map<Ids, std::uint64_t> counts;
      for (std::size_t t = 0; t < view.tokens; ++t) {
        const auto first = ids.begin() + static_cast<std::ptrdiff_t>(t * layers + start);
        ++counts[Ids(first, first + static_cast<std::ptrdiff_t>(n))];
      }
      std::vector<std::pair<Ids, std::uint64_t>> expected(counts.begin(), counts.end());
      std::stable_sort(expected.begin(), expected.end(),
                       [](const auto& a, const auto& b) { return a.second > b.second; });
      const std::size_t cell = start * layers + n - 1;
      const std::string where =
          what + " start=" + std::to_string(start) + " n=" + std::to_string(n);
      require(got.distinct[cell] == expected.size(), where + ": distinct");
      for (std::size_t i = 0; i < top; ++i) {
        if (i >= got.top) {
          require(i >= expected.size(), where + ": listed");
          break;
        }
        const std::size_t entry = cell * got.top + i;
        if (i >= expected.size()) {
          require(got.counts[entry] == 0, where + ": no more");
          continue;
        }
        require(got.counts[entry] == expected[i].second, where + ": count");
        require(std::equal(expected[i].first.begin(), expected[i].first.end(),
                           got.ids.begin() + static_cast<std::ptrdiff_t>(entry * layers)),
                where + ": ids");
      }
    }
  }
}

// The first tokens decide whether equal paths are found first; the counts do not depend on it.
void test_repetition(std::mt19937& random) {
  constexpr std::size_t kLayers = 6;
  const auto tokens = [&](std::size_t number, std::size_t kinds) {
    Ids ids;
    for (std::size_t t = 0; t < number; ++t) {
      std::mt19937 path(static_cast<std::mt19937::result_type>(random() % kinds));
      for (std::size_t l = 0; l < kLayers; ++l)
        ids.push_back(static_cast<std::uint16_t>(path() % 20));
    }
    return ids;
  };
  const Ids distinct = tokens(2000, 1'000'000);
  const Ids repeated = tokens(2000, 50);
  const auto collapses = [&](const Ids& ids) {
    NgramCounter counter(kLayers, 20);
    counter.add(view_of(ids, kLayers), 0, 2);
    return counter.collapses();
  };
  require(!collapses(distinct) && collapses(repeated), "repetition: the rule");
  // A third is added first and is unlike the others.
  for (const auto& [first, second] : {std::pair{&distinct, &repeated}, {&repeated, &distinct}}) {
    Ids ids = *first;
    ids.insert(ids.end(), second->begin(), second->end());
    ids.insert(ids.end(), second->begin(), second->end());
    for (const std::size_t top : {std::size_t{1}, std::size_t{7}}) {
      compare(ids, kLayers, 20, top, "repetition, collapses: " + std::to_string(collapses(*first)));
    }
  }
}

}  // namespace
}  // namespace routestats

int main() {
  using namespace routestats;
  std::mt19937 random(5);
  const std::size_t shapes[][3] = {{0, 3, 4},     {1, 1, 1},      {2, 4, 2},
                                   {500, 6, 8},   {3000, 9, 2},   {900, 5, 40},
                                   {700, 4, 300}, {20'000, 5, 3}, {4000, 7, 130}};
  for (const auto& [tokens, layers, experts] : shapes) {
    for (const std::size_t kinds : {std::size_t{3}, std::size_t{200}}) {
      std::vector<Ids> paths(kinds);
      for (auto& path : paths) {
        for (std::size_t l = 0; l < layers; ++l) {
          path.push_back(static_cast<std::uint16_t>(random() % experts));
        }
      }
      Ids ids;
      for (std::size_t t = 0; t < tokens; ++t) {
        // Skewed, so that a few intervals are long. Some tokens leave their path.
        Ids path = paths[random() % (1 + random() % kinds)];
        if (random() % 4 == 0) {
          path[random() % layers] = static_cast<std::uint16_t>(random() % experts);
        }
        ids.insert(ids.end(), path.begin(), path.end());
      }
      for (const std::size_t top : {std::size_t{0}, std::size_t{3}, std::size_t{25}}) {
        compare(ids, layers, experts, top,
                "T=" + std::to_string(tokens) + " L=" + std::to_string(layers) +
                    " E=" + std::to_string(experts) + " kinds=" + std::to_string(kinds));
      }
    }
  }
  NgramCounter counter(2, 4);
  counter.add(view_of({0, 1, 2, 3}, 2), 0, 1);
  const NgramTable most = counter.count(std::size_t{1} << 62, 1);
  require(most.top == 2 && most.counts == std::vector<std::uint64_t>({1, 1, 1, 1, 1, 1, 0, 0}),
          "no more n-grams than there can be");
  test_repetition(random);
  std::puts("ok");
  return 0;
}
