// Compares the arithmetic of the counting kernels, compiled for the host and run thread by thread,
// with the counts of the CPU.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cuda/device_ids.hpp"
#include "cuda/device_lists.hpp"
#include "cuda/device_method.hpp"
#include "cuda/device_paths.hpp"
#include "pairs/pair_counts.hpp"
#include "tests/expect.hpp"

namespace {

using namespace routestats;

struct HostAtomics {
  static void minimum(std::uint64_t* word, std::uint64_t value) { *word = std::min(*word, value); }
  template <class Cell>
  static void add(Cell* cell, Cell more) {
    *cell += more;
  }
  static std::uint64_t swap(std::uint64_t* word, std::uint64_t expected, std::uint64_t desired) {
    const std::uint64_t seen = *word;
    if (seen == expected) *word = desired;
    return seen;
  }
  static std::uint32_t next(std::uint32_t* counter) { return (*counter)++; }
};

struct Case {
  std::uint32_t tokens, layers, experts, slots;
};

std::vector<std::uint16_t> draw(const Case& c, bool distinct, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::uint16_t> ids;
  std::vector<std::uint16_t> experts(c.experts);
  for (std::uint32_t e = 0; e < c.experts; ++e) experts[e] = static_cast<std::uint16_t>(e);
  for (std::uint32_t i = 0; i < c.tokens * c.layers; ++i) {
    std::shuffle(experts.begin(), experts.end(), random);
    for (std::uint32_t k = 0; k < c.slots; ++k) {
      ids.push_back(distinct ? experts[k] : static_cast<std::uint16_t>(random() % c.experts));
    }
  }
  return ids;
}

IdView view_of(const std::vector<std::uint16_t>& ids, const Case& c) {
  return {reinterpret_cast<const char*>(ids.data()),
          2,
          c.tokens,
          c.layers,
          c.slots,
          std::int64_t{2} * c.layers * c.slots,
          std::int64_t{2} * c.slots,
          2};
}

struct Tables {
  std::vector<LayerPair> plan;
  std::vector<std::uint64_t> expert;
  std::vector<std::uint64_t> pairs;
};

// All pairs l1 <= l2 but one, so that a cell that is not counted shows up.
Tables on_cpu(const std::vector<std::uint16_t>& ids, const Case& c) {
  Tables tables;
  for (std::uint32_t hop = 0; hop < c.layers; ++hop) {
    for (std::uint32_t l = 0; l + hop < c.layers; ++l) {
      if (hop != 1 || l != 0) tables.plan.push_back({l, l + hop});
    }
  }
  tables.expert.resize(std::size_t{c.layers} * c.experts);
  tables.pairs.resize(tables.plan.size() * c.experts * c.experts);
  const auto item = static_cast<std::ptrdiff_t>(sizeof(std::uint16_t));
  const auto slots = static_cast<std::ptrdiff_t>(c.slots);
  const ExpertView view{reinterpret_cast<const std::byte*>(ids.data()),
                        2,
                        false,
                        c.tokens,
                        c.layers,
                        c.slots,
                        item * slots * static_cast<std::ptrdiff_t>(c.layers),
                        item * slots,
                        item};
  count_pairs(view, c.experts, tables.plan, {tables.expert.data(), tables.pairs.data()}, {});
  return tables;
}

// Paths in batches, compared with a map. Few slots, so that many keys want the same one.
void paths_are_exact(const Case& c, bool sets, std::uint32_t first_layer) {
  auto ids = draw(c, true, 4);
  for (std::uint32_t t = 1; t < c.tokens; ++t) {  // two thirds repeat an earlier row
    if (t % 3 == 0) continue;
    const std::size_t width = std::size_t{c.layers} * c.slots;
    std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(t / 4 * width), width,
                ids.begin() + static_cast<std::ptrdiff_t>(t * width));
  }
  const PathWindow window{first_layer, c.layers - first_layer, sets ? c.slots : 1,
                          c.experts <= 256 ? 1u : 2u};
  std::map<std::vector<std::uint16_t>, std::uint64_t> expected;
  for (std::uint32_t t = 0; t < c.tokens; ++t) {
    std::vector<std::uint16_t> path;
    for (std::uint32_t l = first_layer; l < c.layers; ++l) {
      const auto* row = ids.data() + (std::size_t{t} * c.layers + l) * c.slots;
      std::vector<std::uint16_t> set(row, row + window.slots);
      std::sort(set.begin(), set.end());
      path.insert(path.end(), set.begin(), set.end());
    }
    ++expected[path];
  }

  const std::uint32_t words = window.words();
  const std::uint64_t slots = std::bit_ceil(expected.size() + 1);
  std::vector<std::uint64_t> table_slots(slots);
  std::vector<std::uint64_t> table_counts(slots);
  std::vector<std::uint32_t> store(std::size_t{c.tokens} * words);
  std::uint32_t stored = 0;
  const std::uint32_t batch_rows = c.tokens / 5 + 1;
  std::vector<std::uint32_t> batch(std::size_t{batch_rows} * words);
  for (std::uint32_t first = 0; first < c.tokens; first += batch_rows) {
    const IdView part = view_of(ids, c).from(first, std::min(batch_rows, c.tokens - first));
    std::fill(batch.begin(), batch.end(), 0);
    for (std::uint32_t row = 0; row < part.tokens; ++row) {
      for (std::uint32_t layer = 0; layer < window.layers; ++layer) {
        for (std::uint32_t slot = 0; slot < window.slots; ++slot) {
          write_key_id(part, window, row, layer, slot, batch.data() + std::size_t{row} * words);
        }
      }
    }
    const PathTableView table{table_slots.data(),
                              table_counts.data(),
                              slots - 1,
                              store.data(),
                              batch.data(),
                              stored,
                              words};
    for (std::uint32_t row = 0; row < part.tokens; ++row) {
      count_key<HostAtomics>(table, stored + row, 1);
    }
    for (std::uint64_t place = 0; place < slots; ++place) {
      keep_key<HostAtomics>(table, place, &stored);
    }
  }
  expect(stored == expected.size(), "distinct paths");
  std::map<std::vector<std::uint16_t>, std::uint64_t> got;
  for (std::uint64_t place = 0; place < slots; ++place) {
    if (table_slots[place] == 0) continue;
    const auto* key = store.data() + std::size_t{key_of_slot(table_slots[place])} * words;
    std::vector<std::uint16_t> path;
    for (std::uint32_t i = 0; i < window.ids(); ++i) {
      path.push_back(window.id_bytes == 1 ? reinterpret_cast<const std::uint8_t*>(key)[i]
                                          : reinterpret_cast<const std::uint16_t*>(key)[i]);
    }
    got[path] = table_counts[place];
  }
  expect(got == expected, "counts of paths");
}

void faults_are_found() {
  const Case c{20, 3, 8, 2};
  const auto good = draw(c, true, 3);
  const auto check = [&](const std::vector<std::uint16_t>& ids) {
    IdFaults faults;
    for (std::uint32_t t = c.tokens; t-- > 0;) {  // in no particular order
      for (std::uint32_t l = 0; l < c.layers; ++l) {
        check_choices<HostAtomics>(view_of(ids, c), c.experts, t, l, &faults);
      }
    }
    return faults;
  };
  expect(check(good).first_bad == kNowhere && check(good).first_repeated == kNowhere, "good ids");
  auto bad = good;
  bad[77] = 8;
  bad[100] = 65535;
  expect(check(bad).first_bad == 77, "the first bad id");
  auto repeated = good;
  repeated[41] = repeated[40];
  repeated[81] = repeated[80];
  expect(check(repeated).first_repeated == 41, "the first expert named twice");
  // In a window of layers the places in messages are those of the window.
  IdFaults faults;
  const IdView window = view_of(repeated, c).layers_from(2, 1);
  for (std::uint32_t t = 0; t < c.tokens; ++t) {
    check_choices<HostAtomics>(window, c.experts, t, 0, &faults);
  }
  expect(faults.first_bad == kNowhere && faults.first_repeated == 13, "of a window");
}

// Negative ids are no experts, whatever the number of experts.
void negative_ids_are_found() {
  expect(id_limit(256, 1, true) == 128 && id_limit(256, 1, false) == 256 &&
             id_limit(65'536, 2, true) == 32'768 && id_limit(8, 1, true) == 8 &&
             id_limit(65'536, 8, true) == 65'536,
         "limits of ids");
  const std::int8_t ids[] = {0, 5, 127, -1};
  const IdView view{reinterpret_cast<const char*>(ids), 1, 2, 1, 2, 2, 2, 1};
  IdFaults faults;
  for (std::uint64_t t = 0; t < 2; ++t) {
    check_choices<HostAtomics>(view, id_limit(256, 1, true), t, 0, &faults);
  }
  expect(faults.first_bad == 3, "-1 is not expert 255");
}

// The work of the kernel of lists: blocks of rows, a list per source expert, eight threads per
// list, four lists side by side in lockstep, and the counters read out after some blocks.
void add_by_lists(const IdView& view, const Case& c, const ListPlan& plan,
                  std::uint32_t blocks_per_share, std::vector<std::uint64_t>& expert,
                  std::vector<std::uint64_t>& table) {
  const ListLayout layout{c.layers, c.experts, c.slots};
  const auto tokens = static_cast<std::uint32_t>(view.tokens);
  const std::uint32_t blocks = (tokens + kListBlockTokens - 1) / kListBlockTokens;

  std::vector<std::uint32_t> rows(layout.groups() * tokens * kListRowWords);
  for (std::uint64_t group = 0; group < layout.groups(); ++group) {
    for (std::uint64_t token = 0; token < tokens; ++token) {
      for (std::uint32_t word = 0; word < kListRowWords; ++word) {
        rows[layout.row_word(group, tokens, token, word)] = bits_of_token(
            view, c.experts, token,
            static_cast<std::uint32_t>(group * kListRowColumns + std::uint64_t{word} * 32));
      }
    }
  }

  // One more entry than there is room for shows a write behind the last one.
  std::vector<std::uint16_t> entries(layout.entries(blocks, 0) + 1, 0xabcd);
  std::vector<std::uint32_t> begins(layout.begins(blocks, 0));
  for (std::uint32_t b = 0; b < blocks; ++b) {
    const std::uint64_t first = std::uint64_t{b} * kListBlockTokens;
    const IdView block =
        view.from(first, std::min<std::uint64_t>(kListBlockTokens, tokens - first));
    for (std::uint32_t layer = 0; layer < c.layers; ++layer) {
      std::vector<std::uint32_t> lengths(c.experts);
      std::vector<std::uint32_t> next(c.experts);
      std::uint32_t* const begin = begins.data() + layout.begins(b, layer);
      std::uint16_t* const entry = entries.data() + layout.entries(b, layer);
      for (std::uint64_t t = 0; t < block.tokens; ++t) {
        count_lengths<HostAtomics>(block, layer, t, lengths.data());
      }
      lay_out_lists(lengths.data(), c.experts, begin, next.data());
      expect(begin[c.experts] <= layout.capacity(), "lists fit their room");
      for (std::uint64_t t = block.tokens; t-- > 0;) {  // in no particular order
        add_to_lists<HostAtomics>(block, layer, t, next.data(), entry);
      }
      for (std::uint32_t e = 0; e < c.experts; ++e) {
        expect(next[e] == begin[e] + lengths[e], "a list holds its tokens");
        fill_up_list(begin, next.data(), e, entry);
        expert[std::size_t{layer} * c.experts + e] += lengths[e];
      }
    }
  }
  expect(entries.back() == 0xabcd, "nothing is written behind the lists");

  for (std::uint64_t group = 0; group < layout.groups(); ++group) {
    for (std::uint32_t layer = 0; layer < c.layers; ++layer) {
      for (std::uint32_t share = 0; share < blocks; share += blocks_per_share) {
        const std::uint32_t last = std::min(share + blocks_per_share, blocks);
        for (std::uint32_t first = 0; first < c.experts; first += 4) {  // a warp
          const auto thread = [&](std::uint32_t lane, BitSums& sums) {
            const std::uint32_t source = first + lane / kListRowWords;
            const std::uint32_t word = lane % kListRowWords;
            sums.clear();
            for (std::uint32_t b = share; b < last; ++b) {
              const std::uint32_t* const begin = begins.data() + layout.begins(b, layer);
              std::uint32_t most = 0;
              for (std::uint32_t e = first; e < std::min(first + 4, c.experts); ++e) {
                most = std::max(most, begin[e + 1] - begin[e]);
              }
              const std::uint32_t length =
                  source < c.experts ? begin[source + 1] - begin[source] : 0;
              for (std::uint32_t i = 0; i < most; i += kDeviceListStep) {
                std::uint32_t row[kDeviceListStep] = {};
                for (std::uint32_t j = 0; i < length && j < kDeviceListStep; ++j) {
                  const std::uint16_t token =
                      entries[layout.entries(b, layer) + begin[source] + i + j];
                  if (token == kZeroRow) continue;
                  row[j] = rows[layout.row_word(group, tokens,
                                                std::uint64_t{b} * kListBlockTokens + token, word)];
                }
                sums.add(row);
              }
            }
            sums.finish();
            for (std::uint32_t counter = 0; source < c.experts && counter < 32; ++counter) {
              const std::uint64_t cell = plan.cell(
                  layer * c.experts + source,
                  static_cast<std::uint32_t>(group) * kListRowColumns + word * 32 + counter);
              if (cell != ~std::uint64_t{0}) table[cell] += sums.count(counter);
            }
          };
          for (std::uint32_t lane = 0; lane < 32; ++lane) {
            BitSums sums;
            thread(lane, sums);
          }
        }
      }
    }
  }
}

// In chunks of this many tokens, into the same tables.
void tables_by_lists(const Case& c, std::uint32_t blocks_per_share, std::uint64_t chunk_tokens) {
  const auto ids = draw(c, true, 5);
  const Tables expected = on_cpu(ids, c);
  std::vector<std::uint32_t> places(std::size_t{c.layers} * c.layers, kNotCounted);
  for (std::size_t place = 0; place < expected.plan.size(); ++place) {
    const auto [source, target] = expected.plan[place];
    places[std::size_t{source} * c.layers + target] = static_cast<std::uint32_t>(place);
  }
  std::vector<std::uint64_t> expert(expected.expert.size());
  std::vector<std::uint64_t> table(expected.pairs.size());
  for (std::uint64_t first = 0; first < c.tokens; first += chunk_tokens) {
    const IdView chunk =
        view_of(ids, c).from(first, std::min<std::uint64_t>(chunk_tokens, c.tokens - first));
    add_by_lists(chunk, c, {places.data(), c.layers, c.experts}, blocks_per_share, expert, table);
  }
  expect(expert == expected.expert, "loads from lists");
  expect(table == expected.pairs, "tables by lists");
}

// Rows and lists of a chunk keep their bounds, and with one more block they would not.
void chunks_are_bounded() {
  constexpr std::uint64_t kRows = 96u << 20;
  constexpr std::uint64_t kLists = 256u << 20;
  for (const ListLayout& layout :
       {ListLayout{32, 8, 2}, ListLayout{32, 8, 8}, ListLayout{1, 1, 1}, ListLayout{48, 128, 8},
        ListLayout{58, 256, 8}, ListLayout{1000, 1000, 50}, ListLayout{1'048'576, 1, 1}}) {
    const std::uint64_t tokens = layout.chunk_tokens(kRows, kLists);
    const std::uint64_t blocks = tokens / kListBlockTokens;
    expect(blocks > 0 && tokens % kListBlockTokens == 0, "whole blocks");
    const auto fits = [&](std::uint64_t n) {
      return layout.row_word(layout.groups(), n * kListBlockTokens, 0, 0) * 4 <= kRows &&
             layout.entries(n, 0) * 2 + layout.begins(n, 0) * 4 <= kLists;
    };
    expect(blocks == 1 || fits(blocks), "a chunk in its bounds");
    expect(!fits(blocks + 1), "a chunk as long as it may be");
  }
  // Narrow rows would allow lists of 1.6 GB.
  expect(ListLayout{32, 8, 8}.chunk_tokens(kRows, kLists) == 254 * kListBlockTokens,
         "few experts, bounded by their lists");
  expect(ListLayout{58, 256, 8}.chunk_tokens(kRows, kLists) == 26 * kListBlockTokens,
         "many experts, bounded by their rows");
}

// As many rows as a share may have, which all set the same counters; and no row at all.
void counters_hold_a_share() {
  const std::uint32_t most = kListShareBlocks * kListBlockTokens;
  BitSums sums;
  sums.clear();
  for (std::uint32_t i = 0; i < most; i += kDeviceListStep) {
    std::uint32_t row[kDeviceListStep];
    for (std::uint32_t j = 0; j < kDeviceListStep; ++j) {
      row[j] = 1u | ((i + j) % 3 == 0 ? 0x80000000u : 0u);
    }
    sums.add(row);
  }
  sums.finish();
  expect(sums.count(0) == most && sums.count(1) == 0 && sums.count(31) == (most + 2) / 3,
         "counters of a whole share");
}

constexpr std::uint64_t kShared = 227u << 10;

void methods_follow_the_estimate() {
  const auto chosen = [](std::uint64_t tokens, std::uint32_t experts, std::uint32_t slots,
                         bool distinct = true, std::uint64_t shared = kShared) {
    return choose_method({tokens, experts, slots, distinct, shared});
  };
  const DeviceMethod direct = DeviceMethod::direct;
  const DeviceMethod lists = DeviceMethod::lists;
  expect(chosen(1'000'000, 8, 2) == lists && chosen(1000, 8, 2) == lists, "Mixtral");
  expect(chosen(1'000'000, 128, 8) == lists && chosen(1000, 128, 8) == lists, "Qwen3");
  expect(chosen(1'000'000, 256, 8) == lists && chosen(1000, 256, 8) == direct, "DeepSeek-V3");
  expect(chosen(1'000'000, 512, 16) == lists, "many of many experts");
  expect(chosen(100, 128, 8) == direct, "few tokens");
  expect(chosen(0, 128, 8) == direct && chosen(1, 1, 1) == direct, "no tokens, and one");
  expect(chosen(1'000'000, 256, 1) == direct, "the first of many experts");
  expect(chosen(1'000'000, 8, 2, false) == direct, "repeated experts");
  expect(chosen(1'000'000, 8, 2, true, 48u << 10) == direct, "little shared memory");
  // The lists of one block of tokens: 2048 * 16 + 40 * 7 entries of 2 bytes, 121 words.
  const std::uint64_t enough = (2048u * 16 + 40 * 7) * 2 + 121 * 4;
  expect(chosen(1'000'000, 40, 16, true, enough) == lists &&
             chosen(1'000'000, 40, 16, true, enough - 1) == direct,
         "just enough shared memory");
  for (const std::uint32_t experts : {1u, 1000u, 5000u, 65'536u}) {
    for (const std::uint32_t slots : {1u, 64u, 1000u, 100'000u}) {
      for (const bool distinct : {false, true}) {
        for (const std::uint64_t tokens : {1ull, 100ull, 1'000'000'000'000ull}) {
          const DeviceWork work{tokens, experts, slots, distinct, kShared};
          expect(is_possible(choose_method(work), work), "what is chosen is possible");
        }
      }
    }
  }
}

}  // namespace

int main() {
  for (const Case& c : {Case{700, 5, 8, 2}, Case{300, 3, 40, 4}, Case{70, 2, 130, 8},
                        Case{33, 4, 1, 1}, Case{600, 3, 7, 3}}) {
    tables_by_lists(c, 1, c.tokens);
  }
  tables_by_lists({3 * kListBlockTokens + 77, 3, 9, 2}, 2, 4 * kListBlockTokens);
  tables_by_lists({3 * kListBlockTokens + 77, 3, 9, 2}, 2, 2 * kListBlockTokens);
  tables_by_lists({kListBlockTokens, 2, 300, 8}, kListShareBlocks, kListBlockTokens);
  chunks_are_bounded();
  counters_hold_a_share();
  methods_follow_the_estimate();
  for (const bool sets : {false, true}) {
    paths_are_exact({900, 5, 8, 2}, sets, 0);
    paths_are_exact({900, 6, 300, 3}, sets, 1);
    paths_are_exact({400, 2, 3, 3}, sets, 1);
  }
  faults_are_found();
  negative_ids_are_found();
  std::puts("device counts: ok");
}
