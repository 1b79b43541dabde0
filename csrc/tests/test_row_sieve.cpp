// Whole histories are compared with the readable assembler in Python's tests; these are the corners
// of the interface.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "capture/row_sieve.hpp"
#include "tests/expect.hpp"

namespace {

using namespace routestats;

using Numbers = std::vector<std::int32_t>;

struct Step {
  Numbers requests;
  Numbers counts;
  Numbers drafts;
  Numbers positions;

  RequestRows rows() const { return {requests, counts, drafts, positions, positions}; }
};

constexpr std::int64_t kNoLimit = std::int64_t{1} << 62;

void drafts_wait_across_pieces() {
  RowSieve sieve;
  const auto a = sieve.begin({1, kNoLimit, {}, 0});
  const auto b = sieve.begin({1, kNoLimit, {}, 3});
  expect(!sieve.add(Step{{a, b}, {1, 4}, {0, 3}, {0, 0, 1, 2, 3}}.rows()), "consecutive");
  auto piece = sieve.take();
  expect(piece.kept.size() == 2 && piece.kept[0].domain == 0 && piece.kept[1].domain == 3,
         "domains");
  expect(piece.kept[1].rows == std::vector<std::int64_t>{1}, "the certain row");
  expect(piece.waiting == std::vector<std::int64_t>{2, 3, 4}, "drafts wait");
  expect(sieve.waits(b) && !sieve.waits(a), "whose drafts wait");
  expect(!sieve.add(Step{{b}, {1}, {}, {2}}.rows()), "consecutive");  // one of three was accepted
  piece = sieve.take();
  expect(piece.kept.size() == 1 && piece.kept[0].rows == std::vector<std::int64_t>{0, 3},
         "the draft is row 0 of this piece, and the step's row comes after the three that waited");
  expect(piece.waiting.empty() && sieve.totals().rejected == 2, "two are rejected");
  const auto reached = sieve.end(b, std::nullopt);
  expect(reached && reached->positions == 3 && reached->cached == 0, "reached");
}

void numbers_are_given_again_after_the_piece() {
  RowSieve sieve;
  const auto first = sieve.begin({1, kNoLimit, {}, 0});
  expect(!sieve.end(first, std::nullopt), "never ran");
  expect(sieve.begin({1, kNoLimit, {}, 0}) != first, "still that of the one that ended");
  sieve.take();
  expect(sieve.begin({1, kNoLimit, {}, 0}) == first, "given again");
}

void what_is_wrong_is_refused() {
  RowSieve sieve;
  const auto a = sieve.begin({1, kNoLimit, {}, 0});
  const auto error = [&](const Step& step) { return error_of([&] { sieve.add(step.rows()); }); };
  expect(error({{a}, {1, 1}, {}, {0, 1}}).starts_with("counts, drafts:"), "too many counts");
  expect(error({{a}, {1}, {1, 1}, {0}}).starts_with("counts, drafts:"), "too many drafts");
  expect(error({{a}, {2}, {}, {0}}).starts_with("counts: expected the 1 rows"), "too few rows");
  expect(error({{a}, {-1}, {}, {0}}).starts_with("counts: expected the 1 rows"), "negative");
  for (const std::int32_t number : {-2, a + 1}) {
    expect(error({{number}, {1}, {}, {0}}) ==
               "requests: " + std::to_string(number) + " is not under way",
           "no request");
  }
  expect(sieve.add(Step{{RequestRows::kForeign, a}, {2, 2}, {}, {7, 9, 0, 5}}.rows()) == 1U,
         "positions jump");
  expect(sieve.totals().foreign == 2, "another's rows");
  sieve.end(a, 1);
  expect(error_of([&] { sieve.end(a, 1); }) == "requests: 0 is not under way", "ended twice");
}

}  // namespace

int main() {
  drafts_wait_across_pieces();
  numbers_are_given_again_after_the_piece();
  what_is_wrong_is_refused();
  std::puts("row sieve: ok");
}
