// Compares every method and instruction set with a naive oracle, over shapes with ragged edges.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "base/token_ranges.hpp"
#include "pairs/pair_counts.hpp"

namespace routestats {
namespace {

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

struct Shape {
  std::size_t tokens;
  std::size_t layers;
  std::size_t experts;
  std::size_t slots;
};

struct Counts {
  std::vector<std::uint64_t> expert;
  std::vector<std::uint64_t> pairs;
  bool operator==(const Counts&) const = default;
};

template <class Id>
ExpertView view_of(const std::vector<Id>& ids, const Shape& shape) {
  constexpr auto item = static_cast<std::ptrdiff_t>(sizeof(Id));
  const auto slots = static_cast<std::ptrdiff_t>(shape.slots);
  const auto layers = static_cast<std::ptrdiff_t>(shape.layers);
  return {reinterpret_cast<const std::byte*>(ids.data()),
          sizeof(Id),
          std::is_signed_v<Id>,
          shape.tokens,
          shape.layers,
          shape.slots,
          item * slots * layers,
          item * slots,
          item};
}

std::vector<LayerPair> all_pairs(std::size_t layers) {
  std::vector<LayerPair> pairs;
  for (std::uint32_t source = 0; source < layers; ++source) {
    for (std::uint32_t target = source; target < layers; ++target) {
      pairs.push_back({source, target});
    }
  }
  return pairs;
}

Counts zeros(const Shape& shape, std::size_t pairs) {
  return {std::vector<std::uint64_t>(shape.layers * shape.experts),
          std::vector<std::uint64_t>(pairs * shape.experts * shape.experts)};
}

template <class Id>
Counts naive(const std::vector<Id>& ids, const Shape& shape, const std::vector<LayerPair>& pairs) {
  Counts counts = zeros(shape, pairs.size());
  for (std::size_t t = 0; t < shape.tokens; ++t) {
    const Id* row = ids.data() + t * shape.layers * shape.slots;
    for (std::size_t l = 0; l < shape.layers; ++l) {
      for (std::size_t k = 0; k < shape.slots; ++k) {
        ++counts.expert[l * shape.experts + static_cast<std::size_t>(row[l * shape.slots + k])];
      }
    }
    for (std::size_t p = 0; p < pairs.size(); ++p) {
      for (std::size_t i = 0; i < shape.slots; ++i) {
        for (std::size_t j = 0; j < shape.slots; ++j) {
          const auto e = static_cast<std::size_t>(row[pairs[p].source * shape.slots + i]);
          const auto f = static_cast<std::size_t>(row[pairs[p].target * shape.slots + j]);
          ++counts.pairs[(p * shape.experts + e) * shape.experts + f];
        }
      }
    }
  }
  return counts;
}

// Experts are distinct per token and layer, or each is drawn by itself.
template <class Id>
std::vector<Id> random_ids(const Shape& shape, bool distinct, std::mt19937& random) {
  std::vector<Id> ids;
  std::vector<Id> urn(shape.experts);
  for (std::size_t e = 0; e < shape.experts; ++e) urn[e] = static_cast<Id>(e);
  for (std::size_t row = 0; row < shape.tokens * shape.layers; ++row) {
    for (std::size_t k = 0; k < shape.slots; ++k) {
      const std::size_t kept = distinct ? k : 0;
      std::uniform_int_distribution<std::size_t> pick(kept, shape.experts - 1);
      std::swap(urn[kept], urn[pick(random)]);
      ids.push_back(urn[kept]);
    }
  }
  return ids;
}

template <class Id>
void compare(const Shape& shape, bool distinct, std::mt19937& random) {
  const auto ids = random_ids<Id>(shape, distinct, random);
  const auto pairs = all_pairs(shape.layers);
  const Counts expected = naive(ids, shape, pairs);
  for (const Isa isa : available_isas()) {
    for (const Method method : kMethods) {
      for (const unsigned threads : {1u, 3u}) {
        for (const std::size_t block : {std::size_t{0}, std::size_t{97}}) {
          Counts got = zeros(shape, pairs.size());
          count_pairs(view_of(ids, shape), shape.experts, pairs,
                      {got.expert.data(), got.pairs.data()},
                      {.threads = threads, .method = method, .isa = isa, .block_tokens = block});
          require(got == expected,
                  std::string(name_of(isa)) + " T=" + std::to_string(shape.tokens) +
                      " L=" + std::to_string(shape.layers) + " E=" + std::to_string(shape.experts) +
                      " K=" + std::to_string(shape.slots) + " item=" + std::to_string(sizeof(Id)) +
                      " threads=" + std::to_string(threads) + " block=" + std::to_string(block));
        }
      }
    }
  }
}

void test_shapes() {
  std::mt19937 random(7);
  for (const Shape& shape :
       {Shape{0, 2, 4, 2}, Shape{1, 1, 1, 1}, Shape{63, 3, 8, 2}, Shape{64, 2, 5, 3},
        Shape{511, 4, 9, 4}, Shape{4097, 3, 8, 2}, Shape{1000, 2, 64, 6}, Shape{300, 2, 300, 8},
        Shape{9000, 3, 200, 5}}) {
    if (shape.experts <= 256) {
      compare<std::uint8_t>(shape, true, random);
      compare<std::uint8_t>(shape, false, random);
    }
    compare<std::uint16_t>(shape, true, random);
    compare<std::int64_t>(shape, false, random);
  }
}

// More identical rows than a 16-bit cell can count, added to counts that a 32-bit cell cannot hold;
// with and without an expert that stands twice in a row.
void test_wide_counts() {
  const Shape shape{70'000, 2, 3, 2};
  const std::vector<LayerPair> pairs{{0, 1}};
  constexpr std::uint64_t before = std::uint64_t{1} << 40;
  for (const std::uint8_t last : {std::uint8_t{0}, std::uint8_t{1}}) {
    std::vector<std::uint8_t> ids;
    for (std::size_t t = 0; t < shape.tokens; ++t) ids.insert(ids.end(), {2, 0, 1, last});
    const std::uint64_t expected = (last == 1 ? 2u : 1u) * shape.tokens;
    for (const Method method : kMethods) {
      Counts got = zeros(shape, 1);
      got.pairs[2 * 3 + 1] = before;
      count_pairs(view_of(ids, shape), shape.experts, pairs, {got.expert.data(), got.pairs.data()},
                  {.threads = 2, .method = method});
      require(got.pairs[2 * 3 + 1] == before + expected, "wide pair count");
      require(got.expert[3 + 1] == expected, "wide expert count");
    }
  }
}

// More tokens in one block than bit-sliced counters can count.
void test_long_block() {
  const Shape shape{(std::size_t{1} << 24) + 5, 1, 2, 1};
  const std::vector<std::uint8_t> ids(shape.tokens, 1);
  for (const Isa isa : available_isas()) {
    Counts got = zeros(shape, 1);
    count_pairs(view_of(ids, shape), shape.experts, all_pairs(1),
                {got.expert.data(), got.pairs.data()},
                {.threads = 2, .method = Method::lists, .isa = isa, .block_tokens = shape.tokens});
    require(got.pairs[3] == shape.tokens, std::string("a long block, ") + name_of(isa));
  }
}

std::vector<LayerPair> hop_pairs(std::size_t layers, const std::vector<std::size_t>& hops) {
  std::vector<LayerPair> pairs;
  for (const std::size_t hop : hops) {
    for (std::size_t source = 0; source + hop < layers; ++source) {
      pairs.push_back(
          {static_cast<std::uint32_t>(source), static_cast<std::uint32_t>(source + hop)});
    }
  }
  return pairs;
}

// Each method is the choice for some shapes.
void test_choice() {
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    require(choose_method({32, 8, 2, 528}, isa) == Method::bitmap, "few experts, all pairs");
    require(choose_method({48, 128, 8, 1176}, isa) != Method::block_lists, "all pairs");
    require(choose_method({48, 128, 8, 95}, isa) == Method::block_lists, "adjacent layers");
    require(choose_method({58, 256, 8, 115}, isa) != Method::lists, "adjacent layers, E = 256");
    require(choose_method({48, 128, 1, 95}, isa) == Method::direct, "first choices");
  }
  require(choose_method({48, 128, 8, 1176}, Isa::avx512) == Method::lists, "all pairs, wide");
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    require(choose_method({8, 192, 8, 15}, isa) == Method::block_lists, "ragged layers");
    require(choose_method({8, 512, 10, 15}, isa) != Method::direct, "a tile that no cache holds");
  }
}

// Lists of a block: several blocks, parts, windows of source layers, rows per source and threads;
// layers of less than, exactly and more than half a row; experts that stand twice in one block, at
// a source or only at a target.
void test_block_lists() {
  std::mt19937 random(13);
  for (const Shape& shape : {Shape{2047, 19, 60, 4}, Shape{2049, 11, 128, 8},
                             Shape{5000, 5, 256, 8}, Shape{300, 4, 600, 6}, Shape{2100, 3, 512, 2},
                             Shape{2500, 12, 1, 1}, Shape{900, 10, 8, 8}, Shape{100, 2, 300, 70}}) {
    for (const bool repeated : {false, true}) {
      auto ids = random_ids<std::uint16_t>(shape, true, random);
      if (repeated && shape.slots > 1 && shape.tokens > 2048) {
        const std::size_t layer = shape.layers / 2;
        std::uint16_t* slots = &ids[(2048 * shape.layers + layer) * shape.slots];
        slots[1] = slots[0];
      }
      const auto view = view_of(ids, shape);
      for (const auto& pairs : {hop_pairs(shape.layers, {0, 1}), hop_pairs(shape.layers, {1}),
                                hop_pairs(shape.layers, {0, 1, 2}), std::vector<LayerPair>{}}) {
        const Counts expected = naive(ids, shape, pairs);
        for (const Isa isa : available_isas()) {
          for (const unsigned threads : {1u, 2u, 8u}) {
            for (const std::size_t part : {std::size_t{0}, std::size_t{2048}, std::size_t{999}}) {
              Counts got = zeros(shape, pairs.size());
              count_pairs(view, shape.experts, pairs, {got.expert.data(), got.pairs.data()},
                          {.threads = threads,
                           .method = Method::block_lists,
                           .isa = isa,
                           .block_tokens = part});
              require(got == expected,
                      std::string("lists of a block, ") + name_of(isa) + " T=" +
                          std::to_string(shape.tokens) + " E=" + std::to_string(shape.experts) +
                          " pairs=" + std::to_string(pairs.size()) +
                          " threads=" + std::to_string(threads) + " part=" + std::to_string(part));
            }
          }
        }
      }
    }
  }
}

void test_token_ranges() {
  using Ranges = std::vector<TokenRange>;
  require(joined({}).empty(), "no ranges");
  require(joined({{5, 2}, {0, 3}, {3, 1}, {7, 4}, {12, 1}}) == Ranges{{0, 4}, {5, 6}, {12, 1}},
          "ranges that meet");
  using Batches = std::vector<Ranges>;
  const Ranges ranges{{0, 4}, {5, 6}, {12, 1}};
  require(batches_of(ranges, 4) == Batches{{{0, 4}}, {{5, 4}}, {{9, 2}, {12, 1}}}, "batches of 4");
  require(batches_of(ranges, 11) == Batches(1, ranges), "one batch");
  require(batches_of({}, 4).empty(), "no batches");
}

// Tokens that name an expert twice, in blocks that do or do not meet, at all layers or at one that
// few windows of layers read; in a batch of one block, of several and of all.
void test_repeats_in_places() {
  std::mt19937 random(19);
  const Shape shape{11'000, 9, 70, 8};
  for (const std::vector<std::size_t>& tokens :
       {std::vector<std::size_t>{5}, {10'999}, {0, 2'100, 6'200, 8'191, 8'192}}) {
    for (const std::size_t only : {std::size_t{0}, std::size_t{4}, shape.layers}) {
      auto ids = random_ids<std::uint8_t>(shape, true, random);
      for (const std::size_t t : tokens) {
        for (std::size_t l = 0; l < shape.layers; ++l) {
          std::uint8_t* slots = &ids[(t * shape.layers + l) * shape.slots];
          if (l == only || only == shape.layers) slots[7] = slots[3];
        }
      }
      for (const auto& pairs : {hop_pairs(shape.layers, {0, 1}), hop_pairs(shape.layers, {2})}) {
        const Counts expected = naive(ids, shape, pairs);
        for (const Method method : kMethods) {
          for (const std::size_t block : {std::size_t{0}, std::size_t{3000}}) {
            Counts got = zeros(shape, pairs.size());
            count_pairs(view_of(ids, shape), shape.experts, pairs,
                        {got.expert.data(), got.pairs.data()},
                        {.threads = 2, .method = method, .block_tokens = block});
            require(got == expected, "an expert twice at layer " + std::to_string(only) + " of " +
                                         std::to_string(tokens.size()) + " tokens, method " +
                                         name_of(method) + " block=" + std::to_string(block));
          }
        }
      }
    }
  }
}

// Shapes where the bits of a layer need one more word, or another width. The last expert of the
// last token is the last one of the layer, so a word too few or a column too many shows up.
void test_layer_widths() {
  std::mt19937 random(17);
  for (const std::size_t experts :
       {63u, 64u, 65u, 127u, 128u, 129u, 160u, 191u, 192u, 193u, 255u, 256u, 257u}) {
    const Shape shape{2300, 4, experts, 3};
    for (const bool repeated : {false, true}) {
      auto ids = random_ids<std::uint16_t>(shape, true, random);
      for (std::size_t l = 0; l < shape.layers; ++l) {
        std::uint16_t* slots = &ids[((shape.tokens - 1) * shape.layers + l) * shape.slots];
        slots[0] = repeated ? static_cast<std::uint16_t>(experts - 1) : 0;
        slots[1] = 1;
        slots[2] = static_cast<std::uint16_t>(experts - 1);
      }
      for (const auto& pairs : {hop_pairs(shape.layers, {0, 1}), hop_pairs(shape.layers, {1}),
                                hop_pairs(shape.layers, {0, 1, 2})}) {
        const Counts expected = naive(ids, shape, pairs);
        for (const Isa isa : available_isas()) {
          Counts got = zeros(shape, pairs.size());
          count_pairs(view_of(ids, shape), shape.experts, pairs,
                      {got.expert.data(), got.pairs.data()},
                      {.threads = 2, .method = Method::block_lists, .isa = isa});
          require(got == expected, std::string("lists of a block, ") + name_of(isa) +
                                       " E=" + std::to_string(experts) +
                                       " pairs=" + std::to_string(pairs.size()) +
                                       (repeated ? ", an expert twice" : ""));
        }
      }
    }
  }
}

// Rows that are drawn for each layer, fewer and more than there are, give the counts of a copy.
void test_row_order() {
  std::mt19937 random(11);
  for (const std::size_t drawn : {std::size_t{0}, std::size_t{150}, std::size_t{700}}) {
    const Shape shape{300, 4, 9, 3};
    const auto ids = random_ids<std::uint8_t>(shape, drawn != 150, random);
    const Shape ordered{drawn, shape.layers, shape.experts, shape.slots};
    std::vector<std::uint32_t> order(shape.layers * drawn);
    std::vector<std::uint8_t> copy(drawn * shape.layers * shape.slots);
    for (auto& row : order) row = static_cast<std::uint32_t>(random() % shape.tokens);
    for (std::size_t t = 0; t < drawn; ++t) {
      for (std::size_t l = 0; l < shape.layers; ++l) {
        for (std::size_t k = 0; k < shape.slots; ++k) {
          copy[(t * shape.layers + l) * shape.slots + k] =
              ids[(order[l * drawn + t] * shape.layers + l) * shape.slots + k];
        }
      }
    }
    const auto pairs = all_pairs(shape.layers);
    const Counts expected = naive(copy, ordered, pairs);
    for (const Method method : kMethods) {
      Counts got = zeros(shape, pairs.size());
      count_pairs(view_of(ids, shape), shape.experts, pairs, {got.expert.data(), got.pairs.data()},
                  {.threads = 2,
                   .row_order = RowOrder{order.data(), drawn},
                   .method = method,
                   .block_tokens = 97});
      require(got == expected, "row order of " + std::to_string(drawn) + " tokens");
    }
  }
}

void test_out_of_range() {
  const Shape shape{20, 4, 8, 2};
  std::vector<std::int32_t> ids(shape.tokens * shape.layers * shape.slots, 7);
  const auto message_with = [&](std::int32_t bad) {
    ids[(17 * shape.layers + 3) * shape.slots + 1] = bad;
    Counts got = zeros(shape, 0);
    try {
      count_pairs(view_of(ids, shape), shape.experts, {}, {got.expert.data(), got.pairs.data()},
                  {.threads = 2, .counted_slots = 1, .first_token = 100});
    } catch (const ExpertOutOfRange& error) {
      require(got == zeros(shape, 0), "an invalid array adds nothing");
      return std::string(error.what());
    }
    return std::string("nothing thrown");
  };
  require(message_with(9) == "experts[117, 3, 1] = 9, but num_experts is 8", "id too large");
  require(message_with(-1) == "experts[117, 3, 1] = -1, but num_experts is 8", "negative id");

  // Read as unsigned, negative ids of one byte would be experts here.
  const std::vector<std::int8_t> bytes{127, -56};
  std::string named;
  try {
    Counts none = zeros({2, 1, 256, 1}, 0);
    count_pairs(view_of(bytes, {2, 1, 256, 1}), 256, {}, {none.expert.data(), nullptr}, {});
  } catch (const ExpertOutOfRange& error) {
    named = error.what();
  }
  require(named == "experts[1, 0, 0] = -56, but num_experts is 256", "negative id of one byte");

  ids.assign(ids.size(), 7);
  std::vector<std::uint32_t> order(shape.layers * shape.tokens, 19);
  order[2 * shape.tokens + 5] = 20;
  std::string message;
  Counts got = zeros(shape, 0);
  try {
    count_pairs(view_of(ids, shape), shape.experts, {}, {got.expert.data(), got.pairs.data()},
                {.row_order = RowOrder{order.data(), shape.tokens}});
  } catch (const RowOutOfRange& error) {
    message = error.what();
  }
  require(message == "row_order[2, 5] = 20, but there are 20 rows", "row out of range");
  require(got == zeros(shape, 0), "an invalid order adds nothing");
}

}  // namespace
}  // namespace routestats

int main() {
  routestats::test_shapes();
  routestats::test_wide_counts();
  routestats::test_choice();
  routestats::test_block_lists();
  routestats::test_token_ranges();
  routestats::test_repeats_in_places();
  routestats::test_layer_widths();
  routestats::test_long_block();
  routestats::test_row_order();
  routestats::test_out_of_range();
  std::puts("ok");
  return 0;
}
