// Compares the sweep with a search for every context among all training tokens, one by one.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "contexts/layer_columns.hpp"
#include "prediction/history_hits.hpp"

namespace routestats {
namespace {

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

struct Trace {
  std::size_t tokens, layers, slots;
  std::vector<std::uint16_t> ids;

  const std::uint16_t* at(std::size_t token, std::size_t layer) const {
    return ids.data() + (token * layers + layer) * slots;
  }
  ExpertView view() const {
    const auto slot = static_cast<std::ptrdiff_t>(slots);
    const auto row = static_cast<std::ptrdiff_t>(layers) * slot;
    return {reinterpret_cast<const std::byte*>(ids.data()),
            2,
            false,
            tokens,
            layers,
            slots,
            2 * row,
            2 * slot,
            2};
  }
};

Trace random_trace(std::size_t tokens, std::size_t layers, std::size_t experts, std::size_t slots,
                   std::mt19937& random) {
  Trace trace{tokens, layers, slots, {}};
  std::vector<std::uint16_t> urn(experts);
  for (std::size_t row = 0; row < tokens * layers; ++row) {
    for (std::size_t e = 0; e < experts; ++e) urn[e] = static_cast<std::uint16_t>(e);
    // Mostly the first few experts, so that long contexts repeat.
    for (std::size_t k = 0; k < slots; ++k) {
      const std::size_t reach = random() % 4 == 0 ? experts - k : std::min(experts - k, slots + 1);
      std::swap(urn[k], urn[k + random() % reach]);
      trace.ids.push_back(urn[k]);
    }
  }
  return trace;
}

bool same_symbol(const std::uint16_t* a, const std::uint16_t* b, std::size_t slots, bool sets) {
  return sets ? std::is_permutation(a, a + slots, b) : *a == *b;
}

std::size_t common(const Trace& train, std::size_t t, const Trace& test, std::size_t j,
                   std::size_t source, bool sets) {
  std::size_t length = 0;
  while (length <= source && same_symbol(train.at(t, source - length), test.at(j, source - length),
                                         train.slots, sets)) {
    ++length;
  }
  return length;
}

std::vector<std::size_t> ranked(const std::vector<std::size_t>& counts) {
  std::vector<std::size_t> order(counts.size());
  for (std::size_t e = 0; e < order.size(); ++e) order[e] = e;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return counts[a] > counts[b]; });
  return order;
}

// Adds the hits of one test token, one pair and one setting. Returns the length of the context.
std::size_t add_naive(const Trace& train, const Trace& test, std::size_t j, std::size_t source,
                      std::size_t target, const HistoryQuestion& question, std::size_t order,
                      std::size_t support, std::vector<std::int64_t>& hits) {
  std::size_t length = std::min(order, source + 1);
  std::vector<std::size_t> having;
  for (;; --length) {
    having.clear();
    for (std::size_t t = 0; t < train.tokens; ++t) {
      if (common(train, t, test, j, source, question.sets) >= length) having.push_back(t);
    }
    if (having.size() >= support || length == 0) break;
  }
  std::vector<std::size_t> first(question.experts), members(question.experts);
  for (const std::size_t t : having) {
    ++first[*train.at(t, target)];
    for (std::size_t k = 0; k < train.slots; ++k) ++members[train.at(t, target)[k]];
  }
  const std::uint16_t* truth = test.at(j, target);
  std::size_t measure = 0;
  if (question.top1) hits[measure++] += ranked(first)[0] == *truth;
  const auto order_of = ranked(members);
  for (const std::uint32_t size : question.best) {
    const auto end = order_of.begin() + std::min<std::ptrdiff_t>(size, std::ssize(order_of));
    std::size_t found = 0;
    for (std::size_t k = 0; k < test.slots; ++k)
      found += std::find(order_of.begin(), end, truth[k]) != end;
    hits[measure++] += static_cast<std::int64_t>(found);
    if (size == train.slots) hits.back() += found == train.slots;
  }
  return length;
}

void compare(std::size_t train_tokens, std::size_t test_tokens, std::size_t layers,
             std::size_t experts, std::size_t slots, bool sets, std::mt19937& random) {
  const Trace train = random_trace(train_tokens, layers, experts, slots, random);
  const Trace test = random_trace(test_tokens, layers, experts, slots, random);
  const HistoryQuestion question{
      experts,
      sets,
      true,
      {static_cast<std::uint32_t>(slots), static_cast<std::uint32_t>(2 * slots)},
      {{1, 2, 99}, {1, 3, 1000}}};
  const std::size_t pairs = layers * (layers - 1) / 2, measures = question.measures();
  for (const unsigned threads : {1u, 4u}) {
    std::vector<std::int64_t> hits(9 * measures * pairs), resolved(3 * (layers - 1) * layers);
    count_history_hits(train.view(), test.view(), question, {hits.data(), resolved.data()},
                       threads);
    const std::vector<std::uint32_t> groups(test_tokens, 1), chosen(pairs, 4);
    std::vector<std::int64_t> grouped(measures * 2 * pairs), again(resolved.size());
    count_history_hits(train.view(), test.view(), question,
                       {grouped.data(), again.data(), groups.data(), 2, chosen.data()}, threads);
    std::size_t pair = 0;
    for (std::size_t source = 0; source + 1 < layers; ++source) {
      for (std::size_t target = source + 1; target < layers; ++target, ++pair) {
        for (std::size_t setting = 0; setting < 9; ++setting) {
          std::vector<std::int64_t> expected(measures);
          std::vector<std::int64_t> lengths(layers);
          for (std::size_t j = 0; j < test_tokens; ++j) {
            ++lengths[add_naive(train, test, j, source, target, question,
                                question.settings.orders[setting % 3],
                                question.settings.supports[setting / 3], expected)];
          }
          for (std::size_t m = 0; m < measures; ++m) {
            require(hits[(setting * measures + m) * pairs + pair] == expected[m], "hits");
            if (setting == 4) {
              require(grouped[(m * 2 + 1) * pairs + pair] == expected[m], "hits of a group");
              require(grouped[m * 2 * pairs + pair] == 0, "hits of an empty group");
            }
          }
          for (std::size_t z = 0; z < layers && setting % 3 == 2; ++z) {
            require(resolved[(setting / 3 * (layers - 1) + source) * layers + z] == lengths[z],
                    "resolved");
          }
        }
      }
    }
  }
}

void test_random_traces() {
  std::mt19937 random(11);
  for (const bool sets : {false, true}) {
    compare(1, 3, 2, 1, 1, sets, random);
    compare(40, 0, 3, 4, 2, sets, random);
    compare(60, 25, 5, 3, 1, sets, random);
    compare(60, 25, 5, 8, 2, sets, random);
    compare(50, 20, 4, 16, 3, sets, random);
    compare(50, 20, 4, 300, 8, sets, random);
    compare(60, 20, 5, 6, 6, sets, random);
  }
}

void test_refusals() {
  Trace train{2, 3, 2, {0, 1, 0, 1, 0, 1, 0, 1, 2, 2, 0, 1}};
  HistoryQuestion question{3, true, false, {2}, {{1}, {1}}};
  std::vector<std::int64_t> hits(2 * 3), resolved(2 * 3);
  const auto message = [&] {
    try {
      count_history_hits(train.view(), train.view(), question, {hits.data(), resolved.data()}, 2);
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string("nothing thrown");
  };
  require(message() == "train[1, 1]: expected a set of experts, but 2 stands in slots 0 and 1",
          "a repeated expert");
  train.ids[8] = 0;
  require(message() == "nothing thrown", "a sound trace");
  question.settings.orders = {2, 2};
  require(message() == "orders: expected ascending numbers from 1", "repeated orders");
  question.settings.orders = {1};
  train.ids[8] = 3;
  require(message() == "experts[1, 1, 0] = 3, but num_experts is 3", "an id too large");
}

}  // namespace
}  // namespace routestats

int main() {
  routestats::test_random_traces();
  routestats::test_refusals();
  std::puts("ok");
  return 0;
}
