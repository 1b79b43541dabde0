// Compares add_rank_hits, with every instruction set, with sorting the experts of each token by
// score.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "prediction/rank_hits.hpp"

namespace routestats {
namespace {

struct Case {
  std::size_t targets, experts, table_rows, tokens, picks, slots, groups;
  bool rows_are_shared;
};

struct Arrays {
  std::vector<double> tables, base;
  std::vector<std::uint32_t> rows, group_of;
  std::vector<std::uint16_t> chosen;
};

Arrays draw(const Case& c) {
  std::mt19937_64 random(c.experts * 100 + c.tokens);
  const auto below = [&](std::size_t limit) { return random() % limit; };
  Arrays arrays;
  // Few different scores, so that many differ only by the number of the expert in the base.
  for (std::size_t i = 0; i < c.targets * c.table_rows * c.experts; ++i) {
    arrays.tables.push_back(static_cast<double>(below(4) * c.experts));
  }
  for (std::size_t i = 0; i < c.targets * c.experts; ++i) {
    arrays.base.push_back(static_cast<double>(c.experts - 1 - i % c.experts));
  }
  for (std::size_t i = 0; i < (c.rows_are_shared ? 1 : c.targets) * c.tokens * c.picks; ++i) {
    arrays.rows.push_back(static_cast<std::uint32_t>(below(c.table_rows)));
  }
  for (std::size_t t = 0; t < c.tokens; ++t) {
    arrays.group_of.push_back(static_cast<std::uint32_t>(below(c.groups)));
  }
  std::vector<std::uint16_t> ids(c.experts);
  std::iota(ids.begin(), ids.end(), std::uint16_t{0});
  for (std::size_t i = 0; i < c.targets * c.tokens; ++i) {
    std::shuffle(ids.begin(), ids.end(), random);
    arrays.chosen.insert(arrays.chosen.end(), ids.begin(),
                         ids.begin() + static_cast<std::ptrdiff_t>(c.slots));
  }
  return arrays;
}

ScoredTokens view(const Case& c, const Arrays& a) {
  return {c.targets,       c.experts, c.table_rows,     a.tables.data(),   a.base.data(),
          c.tokens,        c.picks,   a.rows.data(),    c.rows_are_shared, c.slots,
          a.chosen.data(), c.groups,  a.group_of.data()};
}

std::vector<std::int64_t> naive(const ScoredTokens& s, const std::vector<std::uint32_t>& best) {
  const std::size_t width = 2 + best.size();
  std::vector<std::int64_t> hits(s.targets * s.groups * width);
  for (std::size_t p = 0; p < s.targets; ++p) {
    for (std::size_t t = 0; t < s.tokens; ++t) {
      std::vector<double> score(s.base + p * s.experts, s.base + (p + 1) * s.experts);
      const std::size_t row_target = s.rows_are_shared ? 0 : p;
      for (std::size_t i = 0; i < s.picks; ++i) {
        const std::size_t row = s.rows[(row_target * s.tokens + t) * s.picks + i];
        for (std::size_t e = 0; e < s.experts; ++e) {
          score[e] += s.tables[(p * s.table_rows + row) * s.experts + e];
        }
      }
      std::vector<std::size_t> order(s.experts);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::sort(order.begin(), order.end(),
                [&](std::size_t a, std::size_t b) { return score[a] > score[b]; });
      const std::uint16_t* chosen = s.chosen + (p * s.tokens + t) * s.slots;
      const auto found = [&](std::size_t size) {
        std::int64_t count = 0;
        for (std::size_t r = 0; r < std::min(size, s.experts); ++r) {
          count += std::count(chosen, chosen + s.slots, order[r]);
        }
        return count;
      };
      std::int64_t* cells = hits.data() + (p * s.groups + s.group_of[t]) * width;
      cells[0] += order[0] == chosen[0] ? 1 : 0;
      for (std::size_t i = 0; i < best.size(); ++i) cells[1 + i] += found(best[i]);
      cells[width - 1] += found(s.slots) == static_cast<std::int64_t>(s.slots) ? 1 : 0;
    }
  }
  return hits;
}

bool agrees(const Case& c, Isa isa, unsigned threads) {
  const Arrays arrays = draw(c);
  const ScoredTokens scored = view(c, arrays);
  const auto slots = static_cast<std::uint32_t>(c.slots);
  const std::vector<std::uint32_t> best{slots, 2 * slots};
  auto expected = naive(scored, best);
  std::vector<std::int64_t> hits(expected.size(), 1000);  // hits are added to this
  for (auto& cell : expected) cell += 1000;
  add_rank_hits(scored, best, hits.data(), threads, isa);
  return hits == expected;
}

bool refuses(const Case& c, void (*spoil)(Arrays&)) {
  Arrays arrays = draw(c);
  spoil(arrays);
  std::vector<std::int64_t> hits(c.targets * c.groups * 2);
  try {
    add_rank_hits(view(c, arrays), {}, hits.data(), 1, Isa::portable);
  } catch (const std::out_of_range&) {
    return true;
  }
  return false;
}

}  // namespace
}  // namespace routestats

int main() {
  using namespace routestats;
  const std::vector<Case> cases{
      {1, 1, 1, 5, 1, 1, 1, true},     {3, 8, 8, 100, 2, 2, 4, true},
      {2, 7, 3, 50, 3, 4, 2, false},   {2, 13, 5, 9001, 1, 2, 3, true},
      {4, 64, 64, 70, 6, 6, 5, false}, {2, 128, 128, 300, 8, 8, 7, true},
      {2, 60, 61, 40, 4, 4, 1, false}, {1, 256, 300, 30, 0, 8, 2, true},
      {2, 8, 4, 0, 2, 2, 1, true},
  };
  for (const Isa isa : available_isas()) {
    for (const Case& c : cases) {
      for (const unsigned threads : {1u, 3u}) {
        if (agrees(c, isa, threads)) continue;
        std::fprintf(stderr, "FAILED: %s E=%zu T=%zu picks=%zu slots=%zu threads=%u\n",
                     name_of(isa), c.experts, c.tokens, c.picks, c.slots, threads);
        return 1;
      }
    }
  }
  const Case small{2, 8, 4, 10, 2, 2, 3, true};
  if (!refuses(small, [](Arrays& a) { a.rows[3] = 4; }) ||
      !refuses(small, [](Arrays& a) { a.chosen[5] = 8; }) ||
      !refuses(small, [](Arrays& a) { a.group_of[9] = 3; })) {
    std::fputs("FAILED: a value out of range was accepted\n", stderr);
    return 1;
  }
  std::puts("ok");
  return 0;
}
