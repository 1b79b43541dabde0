// Compares path counts with a naive oracle: kinds, windows, key widths, memory, threads, merging,
// ties.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "paths/path_counts.hpp"

namespace routestats {
namespace {

using Path = std::vector<std::uint16_t>;
using Counted = std::vector<std::pair<Path, std::uint64_t>>;

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

struct Trace {
  std::size_t tokens;
  std::size_t layers;
  std::size_t experts;
  std::size_t slots;
  std::vector<std::uint16_t> ids;

  template <class Id>
  static ExpertView view(const std::vector<Id>& items, const Trace& shape) {
    constexpr auto item = static_cast<std::ptrdiff_t>(sizeof(Id));
    const auto slots = static_cast<std::ptrdiff_t>(shape.slots);
    const auto width = slots * static_cast<std::ptrdiff_t>(shape.layers);
    return {reinterpret_cast<const std::byte*>(items.data()),
            sizeof(Id),
            std::is_signed_v<Id>,
            shape.tokens,
            shape.layers,
            shape.slots,
            item * width,
            item * slots,
            item};
  }
};

// Few kinds of tokens, so that paths repeat. The slots of a set are in any order.
Trace random_trace(std::size_t tokens, std::size_t layers, std::size_t experts, std::size_t slots,
                   std::mt19937& random) {
  Trace trace{tokens, layers, experts, slots, {}};
  std::vector<std::uint16_t> urn(experts);
  for (std::size_t e = 0; e < experts; ++e) urn[e] = static_cast<std::uint16_t>(e);
  std::vector<std::vector<std::uint16_t>> kinds(1 + tokens / 3);
  for (auto& kind : kinds) {
    for (std::size_t l = 0; l < layers; ++l) {
      std::shuffle(urn.begin(), urn.end(), random);
      kind.insert(kind.end(), urn.begin(), urn.begin() + static_cast<std::ptrdiff_t>(slots));
    }
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    auto row = kinds[random() % kinds.size()];
    for (std::size_t l = 0; l < layers; ++l) {
      const auto first = row.begin() + static_cast<std::ptrdiff_t>(l * slots);
      std::shuffle(first, first + static_cast<std::ptrdiff_t>(slots), random);
    }
    trace.ids.insert(trace.ids.end(), row.begin(), row.end());
  }
  return trace;
}

Counted naive(const Trace& trace, PathKind kind, std::size_t start, std::size_t length) {
  std::map<Path, std::uint64_t> counts;
  for (std::size_t t = 0; t < trace.tokens; ++t) {
    Path path;
    for (std::size_t l = start; l < start + length; ++l) {
      const std::uint16_t* first = trace.ids.data() + (t * trace.layers + l) * trace.slots;
      Path set(first, first + (kind == PathKind::top1 ? 1 : trace.slots));
      std::sort(set.begin(), set.end());
      path.insert(path.end(), set.begin(), set.end());
    }
    ++counts[path];
  }
  Counted sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return sorted;
}

Counted listed(const PathCounts& counts, std::size_t number) {
  Counted result;
  for (const auto& entry : counts.most_frequent(number)) {
    Path path(counts.codec().ids_per_path());
    counts.codec().unpack(entry.key, path.data());
    result.emplace_back(path, entry.count);
  }
  return result;
}

void compare(const PathCounts& counts, const Counted& expected, const std::string& what) {
  require(counts.distinct() == expected.size(), what + ": distinct");
  require(listed(counts, expected.size() + 7) == expected, what + ": all paths");
  for (const std::size_t number : {std::size_t{0}, std::size_t{1}, expected.size() / 2}) {
    const auto end =
        expected.begin() + static_cast<std::ptrdiff_t>(std::min(number, expected.size()));
    require(listed(counts, number) == Counted(expected.begin(), end), what + ": most frequent");
  }
  std::map<std::uint64_t, std::uint64_t, std::greater<>> frequencies;
  for (const auto& path : expected) ++frequencies[path.second];
  const auto got = counts.frequencies();
  require(got == decltype(got)(frequencies.begin(), frequencies.end()), what + ": frequencies");
}

void test_shapes() {
  std::mt19937 random(11);
  const std::size_t shapes[][4] = {
      {0, 2, 4, 2},     {1, 1, 1, 1},       {700, 1, 1, 1},   {900, 32, 8, 2},  {800, 5, 64, 8},
      {600, 7, 128, 8}, {1300, 58, 256, 8}, {300, 3, 300, 8}, {500, 9, 200, 4}, {400, 6, 60, 4},
      {350, 3, 16, 16}, {350, 2, 70, 6},    {5000, 3, 2, 1},  {300, 5, 129, 2}, {200, 2, 65536, 3}};
  for (const auto& [tokens, layers, experts, slots] : shapes) {
    const Trace trace = random_trace(tokens, layers, experts, slots, random);
    const std::vector<std::uint8_t> narrow(trace.ids.begin(), trace.ids.end());
    const ExpertView wide_view = Trace::view(trace.ids, trace);
    const ExpertView view = experts <= 256 ? Trace::view(narrow, trace) : wide_view;
    for (const PathKind kind : {PathKind::top1, PathKind::set}) {
      for (const std::size_t start : {std::size_t{0}, layers / 2}) {
        const PathShape shape{kind, experts, slots, start, layers - start};
        const Counted expected = naive(trace, kind, start, shape.length);
        const std::string what = (kind == PathKind::set ? "set L=" : "top1 L=") +
                                 std::to_string(layers) + " E=" + std::to_string(experts) +
                                 " K=" + std::to_string(slots) + " start=" + std::to_string(start);
        for (const Isa isa : available_isas()) {
          for (const unsigned threads : {1u, 3u}) {
            PathCounts counts(shape, isa);
            counts.add(view, 0, threads);
            compare(counts, expected, what + " " + name_of(isa));
          }
        }
        PathCounts first(shape);
        PathCounts second(shape);
        const std::size_t cut = tokens / 3;
        first.add(wide_view.tokens_from(0, cut), 0, 1);
        second.add(view.tokens_from(cut, tokens - cut), cut, 2);
        second.merge(first, 2);
        compare(second, expected, what + " merged");
        require(second.tokens() == tokens, what + " tokens");
      }
    }
  }
}

// If all keys share a fingerprint, the keys themselves decide.
void test_equal_fingerprints() {
  constexpr std::size_t kWords = 3;
  KeyArena arena;
  PathTable table(kWords, arena);
  std::vector<std::uint64_t> keys;
  for (std::uint64_t i = 0; i < 300; ++i) keys.insert(keys.end(), {7, i % 100, 9});
  std::vector<KeyRef> refs;
  for (std::size_t i = 0; i < 300; ++i) refs.push_back({keys.data() + i * kWords, 42, 1 + i / 100});
  table.add(refs);
  require(table.size() == 100, "equal fingerprints: size");
  for (std::size_t i = 0; i < 100; ++i) {
    require(table.count(i) == 6 && table.key(i)[1] == i, "equal fingerprints: counts");
  }
}

// Several blocks, tables that grow, and more tokens of one path than 16 bits can count.
void test_many() {
  const Trace shape{300'000, 2, 400, 1, {}};
  std::vector<std::uint16_t> ids;
  for (std::size_t t = 0; t < shape.tokens; ++t) {
    const bool common = t % 3 == 0;
    ids.push_back(common ? 399 : static_cast<std::uint16_t>(t % 399));
    ids.push_back(common ? 399 : static_cast<std::uint16_t>(t / 399 % 400));
  }
  PathCounts counts({PathKind::top1, 400, 1, 0, 2});
  counts.add(Trace::view(ids, shape), 0, 4);
  require(listed(counts, 1) == Counted{{{399, 399}, 100'000}}, "many: the common path");
  std::uint64_t tokens = 0;
  for (const auto& [count, paths] : counts.frequencies()) tokens += count * paths;
  require(tokens == shape.tokens, "many: tokens");
}

// The size of tables is guessed from the tokens so far. Blocks that differ a lot make the guess too
// small or too large. The counts are the same with every number of threads.
void test_misled() {
  constexpr std::size_t kTokens = 50'000;  // several blocks of such long keys
  constexpr std::size_t kTurn = 20'000;
  constexpr std::size_t kLayers = 64;
  constexpr std::size_t kSlots = 8;
  for (const bool distinct_first : {false, true}) {
    std::map<std::size_t, std::uint64_t> expected;
    std::vector<std::uint8_t> ids;
    ids.reserve(kTokens * kLayers * kSlots);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const std::size_t path = (t < kTurn) == distinct_first ? t : t % 7;
      ++expected[path];
      for (std::size_t l = 0; l < kLayers; ++l) {
        const std::size_t first = l < 2 ? path >> (8 * l) : l;
        for (std::size_t k = 0; k < kSlots; ++k)
          ids.push_back(static_cast<std::uint8_t>(first + k));
      }
    }
    std::map<std::uint64_t, std::uint64_t, std::greater<>> frequencies;
    for (const auto& path : expected) ++frequencies[path.second];
    for (const unsigned threads : {1u, 2u, 5u, 8u}) {
      PathCounts counts({PathKind::set, 256, kSlots, 0, kLayers});
      counts.add(Trace::view(ids, Trace{kTokens, kLayers, 256, kSlots, {}}), 0, threads);
      require(counts.distinct() == expected.size(), "misled: distinct");
      const auto got = counts.frequencies();
      require(got == decltype(got)(frequencies.begin(), frequencies.end()), "misled: frequencies");
    }
  }
}

// Room that was made in advance changes only the time, even if it is too little or too much.
void test_reserved() {
  for (const std::size_t room : {0, 1, 40, 5000}) {
    KeyArena arena;
    PathTable table(1, arena);
    table.reserve(room);
    std::vector<std::uint64_t> keys;
    for (std::uint64_t i = 0; i < 3000; ++i) keys.push_back(i % 1000);
    std::vector<KeyRef> refs;
    for (const std::uint64_t& key : keys) {
      refs.push_back({&key, static_cast<std::uint32_t>(hash_key(&key, 1)), 2});
      if (refs.size() == 1500) {
        table.add(refs);
        refs.clear();
        table.reserve(room);
      }
    }
    table.add(refs);
    require(table.size() == 1000, "reserved: size");
    for (std::size_t i = 0; i < 1000; ++i) {
      require(table.count(i) == 6 && *table.key(i) == i, "reserved: counts");
    }
  }
}

std::string message_of(PathKind kind, const std::vector<std::int32_t>& ids) {
  PathCounts counts({kind, 8, 2, 1, 2});
  try {
    counts.add(Trace::view(ids, Trace{20, 4, 8, 2, {}}), 100, 2);
  } catch (const ExpertOutOfRange& error) {
    return error.what();
  } catch (const ExpertRepeated& error) {
    return error.what();
  }
  return "";
}

void test_errors() {
  std::vector<std::int32_t> good;
  for (int i = 0; i < 80; ++i) good.insert(good.end(), {i % 8, (i + 3) % 8});
  require(message_of(PathKind::set, good).empty(), "good ids");
  auto ids = good;
  ids[(17 * 4 + 3) * 2 + 1] = -1;
  require(message_of(PathKind::top1, ids) == "experts[117, 3, 1] = -1, but num_experts is 8",
          "an id outside the window is checked, too");
  ids = good;
  ids[(5 * 4 + 2) * 2 + 1] = ids[(5 * 4 + 2) * 2];
  require(message_of(PathKind::top1, ids).empty(), "top1 takes repeated experts");
  require(message_of(PathKind::set, ids).starts_with("experts[105, 2, 1] = 6, which is in slot 0"),
          "a repeated expert is named: " + message_of(PathKind::set, ids));
  ids = good;
  ids[1] = ids[0];
  require(message_of(PathKind::set, ids).empty(), "a repeated expert outside the window");

  const std::vector<std::int8_t> bytes{127, -56};
  bool refused = false;
  try {
    PathCounts({PathKind::top1, 256, 1, 0, 1}).add(Trace::view(bytes, {2, 1, 256, 1, {}}), 0, 1);
  } catch (const ExpertOutOfRange&) {
    refused = true;
  }
  require(refused, "a negative id that is an expert when read as unsigned");

  for (const std::size_t layers : {std::size_t{1} << 33, std::size_t{1} << 63}) {
    refused = false;
    try {
      PathCounts({PathKind::set, 65'536, 2, 0, layers});
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    require(refused, "more layers than keys can have");
  }
}

}  // namespace
}  // namespace routestats

int main() {
  routestats::test_shapes();
  routestats::test_equal_fingerprints();
  routestats::test_many();
  routestats::test_misled();
  routestats::test_reserved();
  routestats::test_errors();
  std::puts("ok");
  return 0;
}
