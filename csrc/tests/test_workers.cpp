// Phases on several threads: their order, every item once, errors of a phase and between phases.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/workers.hpp"

namespace routestats {
namespace {

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

// Phase n has n + 3 items and sees the results of the phases before it.
void test_order(unsigned threads) {
  constexpr std::size_t kPhases = 50;
  std::vector<std::vector<std::atomic<int>>> done;
  for (std::size_t n = 0; n < kPhases; ++n) done.emplace_back(n + 3);
  std::atomic<bool> early{false};
  run_phases(
      threads, [&](std::size_t n) { return n < kPhases ? n + 3 : 0; },
      [&](std::size_t n, ItemQueue& queue) {
        while (const auto item = queue.next()) {
          if (n > 0) {
            for (const auto& times : done[n - 1]) early = early || times != 1;
          }
          ++done[n][*item];
        }
      });
  require(!early, "phases: one began before the last was done");
  for (const auto& phase : done) {
    for (const auto& times : phase) require(times == 1, "phases: every item once");
  }
}

void test_errors(unsigned threads) {
  for (const bool in_phase : {false, true}) {
    std::atomic<std::size_t> last{0};
    std::string message;
    try {
      run_phases(
          threads,
          [&](std::size_t n) -> std::size_t {
            if (!in_phase && n == 3) throw std::runtime_error("between");
            return n < 10 ? 20 : 0;
          },
          [&](std::size_t n, ItemQueue& queue) {
            last = n;
            while (const auto item = queue.next()) {
              if (in_phase && n == 3 && *item == 7) throw std::runtime_error("within");
            }
          });
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    require(message == (in_phase ? "within" : "between"), "errors: thrown on");
    require(last == (in_phase ? 3u : 2u), "errors: no phase follows");
  }
}

}  // namespace
}  // namespace routestats

int main() {
  using namespace routestats;
  for (const unsigned threads : {0u, 1u, 2u, 3u, 8u}) {
    test_order(threads);
    test_errors(threads);
    run_phases(
        threads, [](std::size_t) { return std::size_t{0}; },
        [](std::size_t, ItemQueue&) { require(false, "phases: none without items"); });
  }
  std::puts("ok");
  return 0;
}
