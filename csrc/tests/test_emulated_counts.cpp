// Runs the CUDA sources, kernels and the code that launches them, on an emulated device, and
// compares counts and paths with those of the CPU.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda/pair_counter.hpp"
#include "cuda/path_counter.hpp"
#include "pairs/pair_counts.hpp"
#include "tests/expect.hpp"

namespace {

using namespace routestats;

struct Case {
  std::uint32_t tokens, layers, experts, slots;
};

std::string name_of(const Case& c) {
  return std::to_string(c.tokens) + " tokens, L=" + std::to_string(c.layers) +
         " E=" + std::to_string(c.experts) + " K=" + std::to_string(c.slots);
}

// A third of the tokens repeat another token; experts differ in popularity.
template <class Id>
std::vector<Id> draw(const Case& c, bool distinct, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Id> ids;
  const std::size_t row = std::size_t{c.layers} * c.slots;
  std::vector<Id> experts(c.experts);
  std::iota(experts.begin(), experts.end(), Id{0});
  for (std::uint32_t t = 0; t < c.tokens; ++t) {
    if (t > 0 && random() % 3 == 0) {
      const std::size_t other = random() % t;
      ids.insert(ids.end(), ids.begin() + static_cast<std::ptrdiff_t>(other * row),
                 ids.begin() + static_cast<std::ptrdiff_t>((other + 1) * row));
      continue;
    }
    for (std::uint32_t l = 0; l < c.layers; ++l) {
      for (std::uint32_t i = 0; i < c.slots; ++i) {
        const std::uint32_t from = distinct ? i : 0;
        const std::uint32_t draws[2] = {static_cast<std::uint32_t>(random() % (c.experts - from)),
                                        static_cast<std::uint32_t>(random() % (c.experts - from))};
        std::swap(experts[from], experts[from + std::min(draws[0], draws[1])]);
        ids.push_back(experts[from]);
      }
    }
    ids.resize((std::size_t{t} + 1) * row);
  }
  return ids;
}

template <class Id>
IdView view_of(const std::vector<Id>& ids, const Case& c) {
  const auto item = static_cast<std::int64_t>(sizeof(Id));
  return {reinterpret_cast<const char*>(ids.data()),
          sizeof(Id),
          c.tokens,
          c.layers,
          c.slots,
          item * c.layers * c.slots,
          item * c.slots,
          item};
}

ExpertView host_view(const IdView& view) {
  return {reinterpret_cast<const std::byte*>(view.data),
          view.item_bytes,
          false,
          view.tokens,
          view.layers,
          view.slots,
          view.token_stride,
          view.layer_stride,
          view.slot_stride};
}

struct Tables {
  std::vector<std::uint64_t> expert, pairs;
  bool operator==(const Tables&) const = default;
  CountTables view() { return {expert.data(), pairs.data()}; }
};

struct Plan {
  std::vector<LayerPair> pairs;
  std::uint32_t slots;  // counted slots
};

Plan all_pairs(const Case& c, std::uint32_t slots) {
  Plan plan{{}, slots};
  for (std::uint32_t a = 0; a < c.layers; ++a) {
    for (std::uint32_t b = a; b < c.layers; ++b) plan.pairs.push_back({a, b});
  }
  return plan;
}

Tables new_tables(const Case& c, const Plan& plan) {
  return {std::vector<std::uint64_t>(std::size_t{c.layers} * c.experts),
          std::vector<std::uint64_t>(plan.pairs.size() * c.experts * c.experts)};
}

Tables on_cpu(const IdView& view, const Case& c, const Plan& plan) {
  Tables tables = new_tables(c, plan);
  CountOptions options;
  options.counted_slots = plan.slots;
  count_pairs(host_view(view), c.experts, plan.pairs, tables.view(), options);
  return tables;
}

template <class Id>
void pairs_are_exact(const Case& c, bool distinct, const Plan& plan) {
  const std::vector<Id> ids = draw<Id>(c, distinct, c.tokens + c.experts);
  const IdView view = view_of(ids, c);
  const Tables expected = on_cpu(view, c, plan);
  const auto got = [&](std::optional<DeviceMethod> method, bool from_host) {
    const cuda::OwnedStream stream = cuda::new_stream();
    cuda::PairCounter counter(c.layers, c.experts, plan.slots, plan.pairs, stream.get());
    const std::uint64_t cut = c.tokens / 3;  // in two unequal calls
    for (const IdView& part : {view.from(0, cut), view.from(cut, c.tokens - cut)}) {
      if (from_host) {
        counter.add_host(part, {0, false}, method);
      } else {
        counter.add(part, {0, false}, method);
      }
    }
    Tables tables = new_tables(c, plan);
    counter.read(tables.view());
    return tables;
  };
  const bool sets = distinct || plan.slots == 1;
  for (const DeviceMethod method : kDeviceMethods) {
    if (!is_possible(method, {1, c.experts, plan.slots, sets, 1u << 17})) continue;
    expect(got(method, false) == expected, name_of(c) + ": " + routestats::name_of(method));
  }
  for (const bool from_host : {false, true}) {
    expect(got(std::nullopt, from_host) == expected, name_of(c) + ": the chosen method");
  }
}

void the_chosen_method_is_taken() {
  const Case c{3000, 2, 24, 3};
  const auto sets = draw<std::uint8_t>(c, true, 3);
  const auto repeated = draw<std::uint8_t>(c, false, 3);
  const Plan plan = all_pairs(c, c.slots);
  cuda::PairCounter counter(c.layers, c.experts, c.slots, plan.pairs, nullptr);
  const auto taken = [&](const IdView& view, std::optional<DeviceMethod> method) {
    return counter.add(view, {0, false}, method);
  };
  const IdView all = view_of(sets, c);
  expect(taken(all, std::nullopt) == DeviceMethod::lists, "many tokens");
  expect(taken(all.from(0, 20), std::nullopt) == DeviceMethod::direct, "few tokens");
  expect(taken(view_of(repeated, c), std::nullopt) == DeviceMethod::direct, "repeated experts");
  expect(taken(all, DeviceMethod::direct) == DeviceMethod::direct &&
             taken(all.from(0, 20), DeviceMethod::lists) == DeviceMethod::lists,
         "the method that was asked for");
  expect(error_of([&] { taken(view_of(repeated, c), DeviceMethod::lists); }) ==
             "method: lists cannot count an expert that a token names twice at one layer",
         "a method that cannot count this");
}

// Lists that get no memory, or only some of it, are passed over. If they were asked for, this is an
// error.
void lists_without_memory_are_passed_over() {
  const Case c{3000, 5, 24, 3};
  const auto ids = draw<std::uint8_t>(c, true, 3);
  const Plan plan = all_pairs(c, c.slots);
  const Tables expected = on_cpu(view_of(ids, c), c, plan);
  const auto count = [&](cuda::PairCounter& counter, DeviceMethod method) {
    expect(counter.add(view_of(ids, c), {0, false}, std::nullopt) == method, "the method taken");
    Tables tables = new_tables(c, plan);
    counter.read(tables.view());
    counter.clear();
    expect(tables == expected, std::string("counted: ") + routestats::name_of(method));
  };
  for (const std::size_t limit : {8192u, 100'000u}) {  // less than the rows, than the entries
    cuda::PairCounter counter(c.layers, c.experts, c.slots, plan.pairs, nullptr);
    emulated_cuda::limit_allocations(limit);
    for (unsigned call = 0; call < 3; ++call) count(counter, DeviceMethod::direct);
    expect(error_of([&] { counter.add(view_of(ids, c), {0, false}, DeviceMethod::lists); }) ==
               "CUDA: allocate device memory: out of memory",
           "a method that was asked for");
    emulated_cuda::limit_allocations(~std::size_t{0});
    count(counter, DeviceMethod::lists);
  }
}

void strides_are_followed() {
  const Case c{90, 3, 20, 4};
  const auto ids = draw<std::uint16_t>(c, true, 1);
  IdView view = view_of(ids, c);
  view.data += view.token_stride;  // from token 1 on, every third one, backwards over layers
  view.tokens = 29;
  view.token_stride *= 3;
  view.data += 2 * view.layer_stride;
  view.layer_stride = -view.layer_stride;
  const Plan plan = all_pairs(c, c.slots);
  const Tables expected = on_cpu(view, c, plan);
  for (const DeviceMethod method : kDeviceMethods) {
    cuda::PairCounter counter(c.layers, c.experts, c.slots, plan.pairs, nullptr);
    counter.add(view, {0, false}, method);
    Tables tables = new_tables(c, plan);
    counter.read(tables.view());
    expect(tables == expected, std::string("strides: ") + routestats::name_of(method));
    counter.clear();
    counter.add(view, {0, false}, method);
    counter.read(tables.view());
    for (auto* const table : {&tables.expert, &tables.pairs}) {
      for (auto& cell : *table) cell /= 2;
    }
    expect(tables == expected, "cleared, and added to");
  }
}

void faults_are_named() {
  const Case c{50, 4, 8, 2};
  std::vector<std::int32_t> ids(c.tokens * c.layers * c.slots, 0);
  const auto at = [&](std::uint32_t t, std::uint32_t l, std::uint32_t k) -> std::int32_t& {
    return ids[(t * c.layers + l) * c.slots + k];
  };
  for (std::uint32_t t = 0; t < c.tokens; ++t) {
    for (std::uint32_t l = 0; l < c.layers; ++l) at(t, l, 1) = 1;
  }
  at(41, 2, 1) = 0;
  cuda::PathCounter paths({2, 2, 2, 1}, c.experts, true, 0, nullptr);
  expect(error_of([&] { paths.add(view_of(ids, c), {100, true}); }) ==
             "experts[141, 2, 1] = 0, which is in slot 0 already; a set needs distinct experts",
         "a set that is none");
  at(17, 3, 0) = at(17, 3, 1) = -1;
  cuda::PairCounter counter(c.layers, c.experts, c.slots, all_pairs(c, 2).pairs, nullptr);
  for (const bool host : {false, true}) {
    const std::string error = error_of([&] {
      if (host) {
        counter.add_host(view_of(ids, c), {0, true}, std::nullopt);
      } else {
        counter.add(view_of(ids, c), {0, true}, std::nullopt);
      }
    });
    expect(error == "experts[17, 3, 0] = -1, but num_experts is 8", "the first bad id: " + error);
  }
  Tables tables = new_tables(c, all_pairs(c, 2));
  counter.read(tables.view());
  expect(std::all_of(tables.pairs.begin(), tables.pairs.end(), [](auto n) { return n == 0; }),
         "nothing is counted on an error");
}

template <class Id>
void paths_are_exact(const Case& c, bool sets, const std::vector<std::uint32_t>& cuts) {
  const std::vector<Id> ids = draw<Id>(c, true, 5);
  for (std::uint32_t start = 0; start < c.layers; start += 2) {
    const std::uint32_t length = c.layers - start;
    const PathWindow window{start, length, sets ? c.slots : 1, c.experts <= 256 ? 1u : 2u};
    std::map<std::vector<std::uint64_t>, std::uint64_t> expected;
    for (std::uint32_t t = 0; t < c.tokens; ++t) {
      std::vector<std::uint64_t> path;
      for (std::uint32_t l = start; l < c.layers; ++l) {
        const Id* row = ids.data() + (std::size_t{t} * c.layers + l) * c.slots;
        std::vector<std::uint64_t> set(row, row + window.slots);
        std::sort(set.begin(), set.end());
        path.insert(path.end(), set.begin(), set.end());
      }
      ++expected[path];
    }
    const cuda::OwnedStream stream = cuda::new_stream();
    cuda::PathCounter counter(window, c.experts, sets, 0, stream.get());
    std::uint32_t first = 0;
    bool from_host = false;
    for (const std::uint32_t cut : cuts) {
      const IdView part = view_of(ids, c).from(first, cut - first);
      first = cut;
      from_host = !from_host;
      if (from_host) {
        counter.add_host(part, {0, false});
      } else {
        counter.add(part, {0, false});
      }
    }
    std::vector<std::uint32_t> keys(std::size_t{counter.distinct()} * window.words());
    std::vector<std::uint64_t> counts(counter.distinct());
    counter.read(keys.data(), counts.data());
    std::map<std::vector<std::uint64_t>, std::uint64_t> got;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const std::uint32_t* key = keys.data() + i * window.words();
      std::vector<std::uint64_t> path;
      for (std::uint32_t j = 0; j < window.ids(); ++j) {
        path.push_back(window.id_bytes == 1 ? reinterpret_cast<const std::uint8_t*>(key)[j]
                                            : reinterpret_cast<const std::uint16_t*>(key)[j]);
      }
      got[path] += counts[i];
    }
    expect(counts.size() == expected.size() && got == expected, name_of(c) + ": paths");
  }
}

}  // namespace

int main() {
  for (const Case& c : {Case{700, 4, 8, 2}, Case{300, 3, 40, 4}, Case{150, 2, 130, 8},
                        Case{33, 4, 1, 1}, Case{600, 3, 7, 3}, Case{1, 2, 64, 8}}) {
    pairs_are_exact<std::uint8_t>(c, true, all_pairs(c, c.slots));
    pairs_are_exact<std::int64_t>(c, true, all_pairs(c, 1));
  }
  pairs_are_exact<std::uint16_t>({400, 2, 300, 3}, true, all_pairs({400, 2, 300, 3}, 3));
  pairs_are_exact<std::int32_t>({300, 3, 9, 3}, false, all_pairs({300, 3, 9, 3}, 3));
  pairs_are_exact<std::uint8_t>({5000, 5, 16, 4}, true, {{{0, 0}, {1, 3}, {4, 4}}, 4});
  // Several blocks of lists in one share.
  pairs_are_exact<std::uint8_t>({5000, 6, 16, 4}, true, all_pairs({5000, 6, 16, 4}, 4));
  pairs_are_exact<std::uint8_t>({400, 3, 16, 4}, true, {{}, 4});  // loads alone
  the_chosen_method_is_taken();
  lists_without_memory_are_passed_over();
  strides_are_followed();
  faults_are_named();
  for (const bool sets : {false, true}) {
    paths_are_exact<std::uint8_t>({900, 5, 8, 2}, sets, {200, 900});
    paths_are_exact<std::uint16_t>({900, 4, 300, 3}, sets, {1, 2, 450, 900});
    paths_are_exact<std::uint8_t>({3000, 2, 3, 3}, sets, {3000});
    paths_are_exact<std::uint16_t>({4000, 2, 300, 2}, sets, {1200, 4000});  // the table grows
  }
  std::puts("counts on emulated CUDA: ok");
}
