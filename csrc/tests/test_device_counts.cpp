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

#include "cuda/device_counts.hpp"
#include "cuda/device_lists.hpp"
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

void tiles_by_increments(const Case& c) {
  const auto ids = draw(c, false, 1);
  const Tables expected = on_cpu(ids, c);
  // Slabs whose size does not divide the rows.
  const std::uint32_t slab = std::max(1u, c.experts / 2 + 1);
  for (std::size_t place = 0; place < expected.plan.size(); ++place) {
    const auto [source, target] = expected.plan[place];
    std::vector<std::uint32_t> tile(std::size_t{c.experts} * c.experts);
    for (std::uint32_t first = 0; first < c.experts; first += slab) {
      const TileRows rows{first, std::min(slab, c.experts - first), c.experts};
      for (std::uint32_t t = 0; t < c.tokens; ++t) {
        const std::uint16_t* row = ids.data() + std::size_t{t} * c.layers * c.slots;
        add_token<0, HostAtomics>(row + source * c.slots, row + target * c.slots, c.slots, rows,
                                  tile.data() + std::size_t{first} * c.experts);
      }
    }
    for (std::size_t i = 0; i < tile.size(); ++i) {
      expect(tile[i] == expected.pairs[place * tile.size() + i], "a cell of a tile");
    }
  }
}

// A warp's words of 32 columns, lane by lane, stage by stage.
std::vector<std::uint32_t> columns_of_warp(const IdView& view, std::uint32_t experts,
                                           std::uint64_t first_token, std::uint32_t first_column) {
  std::vector<std::uint32_t> lanes(32);
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    lanes[lane] = bits_of_token(view, experts, first_token + lane, first_column);
  }
  for (std::uint32_t distance = 16; distance != 0; distance /= 2) {
    const std::vector<std::uint32_t> before = lanes;
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
      lanes[lane] = transpose_stage(before[lane], before[lane ^ distance], lane, distance);
    }
  }
  return lanes;
}

struct Bits {
  std::uint32_t columns;
  std::uint32_t words;
  std::vector<std::uint32_t> data;

  std::uint32_t at(std::uint32_t column, std::uint32_t word) const {
    return data[std::size_t{column} * words + word];
  }
};

Bits bits_of(const IdView& view, const Case& c) {
  const std::uint32_t columns = (c.layers * c.experts + 127) / 128 * 128;
  const std::uint32_t words = (c.tokens + 511) / 512 * 16;
  Bits bits{columns, words, std::vector<std::uint32_t>(std::size_t{columns} * words)};
  for (std::uint32_t column = 0; column < columns; column += 32) {
    for (std::uint32_t word = 0; word < words; ++word) {
      const auto made = columns_of_warp(view, c.experts, std::uint64_t{word} * 32, column);
      for (std::uint32_t lane = 0; lane < 32; ++lane) {
        bits.data[std::size_t{column + lane} * words + word] = made[lane];
      }
    }
  }
  return bits;
}

// mma.m16n8k256 .b1 as the PTX ISA defines it. Register i of A in a lane holds bits 32 * (lane % 4)
// (+ 128 from i = 2) of row lane / 4 (+ 8 for odd i). B has the same bits of its columns. Register
// i of the sum is row lane / 4 (+ 8 from i = 2), column 2 * (lane % 4) + i % 2.
struct Warp {
  std::uint32_t a[32][4];
  std::uint32_t b[32][2];
};

std::uint32_t product_cell(const Warp& warp, std::uint32_t row, std::uint32_t column) {
  std::uint32_t sum = 0;
  for (std::uint32_t word = 0; word < 8; ++word) {
    const std::uint32_t own = warp.a[row % 8 * 4 + word % 4][row / 8 + word / 4 * 2];
    const std::uint32_t other = warp.b[column * 4 + word % 4][word / 4];
    sum += static_cast<std::uint32_t>(std::popcount(own & other));
  }
  return sum;
}

// The work of gram_tensor for one product of 16 x 8 columns.
void add_product(const Bits& bits, std::uint32_t row0, std::uint32_t column0, const GramPlan& plan,
                 std::vector<std::uint64_t>& table) {
  std::uint64_t sum[32][4] = {};
  for (std::uint32_t word = 0; word < bits.words; word += 16) {
    for (std::uint32_t half = 0; half < 2; ++half) {
      Warp warp;
      for (std::uint32_t lane = 0; lane < 32; ++lane) {
        const std::uint32_t w = word + fragment_word(lane) + 2 * half;
        const std::uint32_t upper = row0 + fragment_row(lane, 0);
        const std::uint32_t lower = row0 + fragment_row(lane, 1);
        const std::uint32_t column = column0 + fragment_row(lane, 0);
        warp.a[lane][0] = bits.at(upper, w);
        warp.a[lane][1] = bits.at(lower, w);
        warp.a[lane][2] = bits.at(upper, w + 1);
        warp.a[lane][3] = bits.at(lower, w + 1);
        warp.b[lane][0] = bits.at(column, w);
        warp.b[lane][1] = bits.at(column, w + 1);
      }
      for (std::uint32_t lane = 0; lane < 32; ++lane) {
        for (std::uint32_t i = 0; i < 4; ++i) {
          sum[lane][i] += product_cell(warp, lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
        }
      }
    }
  }
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    for (std::uint32_t i = 0; i < 4; ++i) {
      const std::uint64_t cell = plan.cell(row0 + sum_row(lane, i), column0 + sum_column(lane, i));
      if (cell != ~std::uint64_t{0}) table[cell] += sum[lane][i];
    }
  }
}

void tables_by_bits(const Case& c) {
  const auto ids = draw(c, true, 2);
  const Tables expected = on_cpu(ids, c);
  const Bits bits = bits_of(view_of(ids, c), c);
  std::vector<std::uint32_t> places(std::size_t{c.layers} * c.layers, kNotCounted);
  for (std::size_t place = 0; place < expected.plan.size(); ++place) {
    const auto [source, target] = expected.plan[place];
    places[std::size_t{source} * c.layers + target] = static_cast<std::uint32_t>(place);
  }
  const GramPlan plan{places.data(), c.layers, c.experts};
  std::vector<std::uint64_t> table(expected.pairs.size());
  for (std::uint32_t row = 0; row < bits.columns; row += 16) {
    for (std::uint32_t column = 0; column < bits.columns; column += 8) {
      add_product(bits, row, column, plan, table);
    }
  }
  expect(table == expected.pairs, "pairs by bits");
  for (std::uint32_t column = 0; column < c.layers * c.experts; ++column) {
    std::uint64_t load = 0;
    for (std::uint32_t word = 0; word < bits.words; ++word) {
      load += static_cast<std::uint64_t>(std::popcount(bits.at(column, word)));
    }
    expect(load == expected.expert[column], "load by bits");
  }
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
void add_by_lists(const IdView& view, const Case& c, const GramPlan& plan,
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

}  // namespace

int main() {
  for (const Case& c : {Case{700, 5, 8, 2}, Case{300, 3, 40, 4}, Case{70, 2, 130, 8},
                        Case{33, 4, 1, 1}, Case{600, 3, 7, 3}}) {
    tiles_by_increments(c);
    tables_by_bits(c);
    tables_by_lists(c, 1, c.tokens);
  }
  tables_by_lists({3 * kListBlockTokens + 77, 3, 9, 2}, 2, 4 * kListBlockTokens);
  tables_by_lists({3 * kListBlockTokens + 77, 3, 9, 2}, 2, 2 * kListBlockTokens);
  tables_by_lists({kListBlockTokens, 2, 300, 8}, kListShareBlocks, kListBlockTokens);
  chunks_are_bounded();
  counters_hold_a_share();
  for (const bool sets : {false, true}) {
    paths_are_exact({900, 5, 8, 2}, sets, 0);
    paths_are_exact({900, 6, 300, 3}, sets, 1);
    paths_are_exact({400, 2, 3, 3}, sets, 1);
  }
  faults_are_found();
  negative_ids_are_found();
  std::puts("device counts: ok");
}
