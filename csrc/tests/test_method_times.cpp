// The method by which a device counts pairs: estimates say what to try, and the clock decides.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "cuda/device_method.hpp"
#include "cuda/method_times.hpp"
#include "tests/expect.hpp"

namespace {

using namespace routestats;

constexpr std::uint64_t kShared = 227u << 10;

DeviceWork work_of(std::uint64_t tokens, std::uint32_t experts, std::uint32_t slots,
                   bool distinct = true, bool tensor = true) {
  return {tokens, 8, 36, experts, slots, distinct, tensor, kShared};
}

DeviceMethod cheapest(const DeviceWork& work) {
  DeviceMethod best = DeviceMethod::scatter;
  for (const DeviceMethod method : kDeviceMethods) {
    const auto cost = estimated_cost(method, work);
    expect(cost.has_value() == is_possible(method, work), "what is possible has a cost");
    if (cost && *cost < *estimated_cost(best, work)) best = method;
  }
  return best;
}

void estimates_name_what_is_likely() {
  expect(cheapest(work_of(1'000'000, 8, 2)) == DeviceMethod::tensor, "Mixtral");
  expect(cheapest(work_of(1'000'000, 8, 2, true, false)) == DeviceMethod::lists,
         "without tensor cores");
  expect(cheapest(work_of(1'000'000, 8, 2, false)) == DeviceMethod::histogram, "repeated experts");
  expect(cheapest(work_of(1'000'000, 256, 1)) == DeviceMethod::histogram, "first of many experts");
  expect(cheapest(work_of(1'000'000, 128, 8)) == DeviceMethod::tensor, "Qwen3");
  expect(cheapest(work_of(1'000'000, 128, 8, true, false)) == DeviceMethod::lists,
         "128 without tensor cores");
  expect(cheapest(work_of(1'000'000, 512, 16)) == DeviceMethod::lists, "many of many experts");
  expect(cheapest(work_of(100, 128, 8)) == DeviceMethod::scatter, "few tokens");
  expect(cheapest(work_of(1'000'000'000, 65'536, 2, false)) == DeviceMethod::scatter,
         "no row fits");
  expect(
      tile_rows(128, kShared) == 128 && tile_rows(512, kShared) == 113 && tile_rows(65'536, 1) == 0,
      "rows of a tile");
}

// Counts with the method that it is told, until it is told to try no more. A call takes the given
// milliseconds (0.02 for methods that are not named), and the first one of each method 0.3 more.
// Returns how often each method was tried.
std::map<DeviceMethod, unsigned> settle(MethodTimes& times, const DeviceWork& work,
                                        std::map<DeviceMethod, double> costs) {
  std::map<DeviceMethod, unsigned> trials;
  for (unsigned turn = 0; turn < 100; ++turn) {
    const auto [method, trial, fastest] = times.choose(0, work);
    expect(is_possible(method, work) && is_possible(fastest, work), "what is chosen is possible");
    if (!trial) {
      expect(method == fastest, "the fastest is chosen");
      return trials;
    }
    const double cost = costs.count(method) != 0 ? costs[method] : 0.02;
    times.add(0, work, method, std::min(work.tokens, MethodTimes::kTrialTokens),
              cost + (trials[method]++ == 0 ? 0.3 : 0.0));
  }
  expect(false, "trials come to an end");
  return trials;
}

void the_fastest_is_taken() {
  for (const DeviceMethod fastest : {DeviceMethod::histogram, DeviceMethod::popcount,
                                     DeviceMethod::tensor, DeviceMethod::lists}) {
    MethodTimes times;
    const DeviceWork work = work_of(1'000'000, 128, 8);
    const auto trials = settle(times, work, {{fastest, 0.01}, {DeviceMethod::scatter, 100.0}});
    expect(times.choose(0, work).method == fastest && trials.at(fastest) == MethodTimes::kTrials,
           "the fastest is taken");
    for (const auto& [method, count] : trials) {
      const unsigned wanted = method == DeviceMethod::scatter ? 1 : MethodTimes::kTrials;
      expect(count == wanted, "what is hopeless is not tried again");
    }
    // Other numbers of tokens, shapes and devices have times of their own.
    expect(!times.choose(0, work_of(900'000, 128, 8)).trial, "every large call is alike");
    expect(times.choose(0, work_of(3000, 128, 8)).trial, "a small call");
    expect(times.choose(0, work_of(1'000'000, 64, 8)).trial, "another shape");
    expect(times.choose(1, work).trial, "another device");
  }
}

void what_has_no_memory_is_ruled_out() {
  for (const unsigned after : {0u, 1u}) {  // trials
    MethodTimes times;
    const DeviceWork work = work_of(1'000'000, 128, 8);
    for (unsigned trial = 0; trial < after; ++trial) {
      times.add(0, work, DeviceMethod::lists, MethodTimes::kTrialTokens, 0.001);
    }
    times.rule_out(0, work, DeviceMethod::lists);
    expect(settle(times, work, {}).count(DeviceMethod::lists) == 0, "it is not tried");
    expect(times.choose(0, work).method != DeviceMethod::lists, "and not taken");
  }
  MethodTimes times;
  const DeviceWork work = work_of(1'000'000, 128, 8);
  for (const DeviceMethod method : kDeviceMethods) {
    if (method != DeviceMethod::scatter) times.rule_out(0, work, method);
  }
  settle(times, work, {});
  expect(times.choose(0, work).method == DeviceMethod::scatter, "one needs none");
  expect(times.rows().size() <= 1, "what was never tried has no time");
}

void what_cannot_win_is_not_tried() {
  MethodTimes times;
  const auto trials = settle(times, work_of(1'000'000, 8, 2), {});
  expect(trials.count(DeviceMethod::scatter) == 0, "the table's own increments");
  expect(trials.size() >= 3, "what is near is tried");
  MethodTimes others;
  const DeviceWork repeated = work_of(1'000'000, 8, 2, false);
  for (const auto& [method, count] : settle(others, repeated, {})) {
    expect(method == DeviceMethod::scatter || method == DeviceMethod::histogram, "needs no sets");
  }
}

void every_shape_has_a_method() {
  for (const std::uint32_t slots : {1u, 64u, 1000u}) {
    for (const std::uint32_t experts : {1u, 1000u, 5000u, 65'536u}) {
      for (const bool distinct : {false, true}) {
        for (const std::uint64_t tokens : {1ull, 100ull, 1'000'000'000'000ull}) {
          MethodTimes times;
          settle(times, work_of(tokens, experts, std::min(slots, experts), distinct, false), {});
        }
      }
    }
  }
}

void what_was_measured_is_told() {
  MethodTimes times;
  const DeviceWork work = work_of(1'000'000, 128, 8);
  times.add(0, work, DeviceMethod::lists, 65'536, 65'536 * 36 * 5e-9);
  times.add(0, work, DeviceMethod::lists, 65'536, 65'536 * 36 * 4e-9);
  const auto rows = times.rows();
  expect(rows.size() == 1 && rows[0].trials == 2 && rows[0].method == DeviceMethod::lists &&
             rows[0].work.tokens == MethodTimes::kTrialTokens && rows[0].work.experts == 128,
         "a row per method");
  expect(rows[0].picoseconds > 3.99 && rows[0].picoseconds < 4.01, "the best of the trials");
}

}  // namespace

int main() {
  estimates_name_what_is_likely();
  the_fastest_is_taken();
  what_has_no_memory_is_ruled_out();
  what_cannot_win_is_not_tried();
  every_shape_has_a_method();
  what_was_measured_is_told();
  std::puts("method times: ok");
}
