#include "cuda/method_times.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace routestats {
namespace {

// Estimates may be wrong by a factor of ten, but not by this one.
constexpr double kNoTrial = 50;
// A method so much slower than the fastest is not tried again, if its trial took so long that
// nothing else explains it.
constexpr double kNoSecondTrial = 4;
constexpr double kCertainMilliseconds = 5;

double per_token_and_pair(const DeviceWork& work, std::uint64_t tokens, double milliseconds) {
  // Expert loads are counted even where no pairs are.
  const auto pairs = static_cast<double>(std::max<std::uint64_t>(work.pairs, 1));
  return milliseconds * 1e9 / (static_cast<double>(tokens) * pairs);
}

// What may be the fastest, the likeliest first.
std::vector<DeviceMethod> candidates(const DeviceWork& work) {
  std::vector<std::pair<double, DeviceMethod>> costs;
  for (const DeviceMethod method : kDeviceMethods) {
    if (const auto cost = estimated_cost(method, work)) costs.emplace_back(*cost, method);
  }
  std::sort(costs.begin(), costs.end());
  std::vector<DeviceMethod> methods;
  for (const auto& [cost, method] : costs) {
    if (cost <= kNoTrial * costs.front().first) methods.push_back(method);
  }
  return methods;
}

}  // namespace

MethodTimes::Key MethodTimes::key_of(int device, const DeviceWork& work) {
  const std::uint64_t size = std::bit_ceil(std::clamp<std::uint64_t>(work.tokens, 1, kTrialTokens));
  return {device, work.layers, work.pairs, work.experts, work.slots, work.distinct, size};
}

MethodTimes::Choice MethodTimes::choose(int device, const DeviceWork& work) const {
  // Of one size, so that a call knows them as long as it has any tokens left.
  DeviceWork sized = work;
  sized.tokens = std::get<6>(key_of(device, work));
  const std::lock_guard lock(mutex_);
  const auto known = times_.find(key_of(device, work));
  const Times none;
  const Times& times = known == times_.end() ? none : known->second;
  const std::vector<DeviceMethod> worth_a_trial = candidates(sized);
  const auto time_of = [&](DeviceMethod method) {
    const auto time = times.find(method);
    return time == times.end() ? Time{} : time->second;
  };
  double least = 0;
  // Always possible, and needs no memory.
  DeviceMethod fastest = DeviceMethod::scatter;
  for (const DeviceMethod method : worth_a_trial) {
    const Time time = time_of(method);
    if (time.trials == 0 || time.ruled_out) continue;
    if (least != 0 && time.picoseconds >= least) continue;
    least = time.picoseconds;
    fastest = method;
  }
  for (unsigned round = 0; round < kTrials; ++round) {
    for (const DeviceMethod method : worth_a_trial) {
      const Time time = time_of(method);
      if (time.ruled_out || time.trials != round) continue;
      const bool hopeless =
          time.picoseconds > kNoSecondTrial * least && time.milliseconds > kCertainMilliseconds;
      if (round == 0 || !hopeless) return {method, true, fastest};
    }
  }
  return {fastest, false, fastest};
}

void MethodTimes::add(int device, const DeviceWork& work, DeviceMethod method, std::uint64_t tokens,
                      double milliseconds) {
  const double picoseconds = per_token_and_pair(work, tokens, milliseconds);
  const std::lock_guard lock(mutex_);
  Time& time = times_[key_of(device, work)][method];
  time.picoseconds = time.trials == 0 ? picoseconds : std::min(time.picoseconds, picoseconds);
  time.milliseconds = milliseconds;
  ++time.trials;
}

void MethodTimes::rule_out(int device, const DeviceWork& work, DeviceMethod method) {
  const std::lock_guard lock(mutex_);
  times_[key_of(device, work)][method].ruled_out = true;
}

std::vector<MethodTimes::Row> MethodTimes::rows() const {
  const std::lock_guard lock(mutex_);
  std::vector<Row> rows;
  for (const auto& [key, times] : times_) {
    const auto& [device, layers, pairs, experts, slots, distinct, tokens] = key;
    for (const auto& [method, time] : times) {
      if (time.trials == 0) continue;
      rows.push_back({device,
                      {tokens, layers, pairs, experts, slots, distinct, true, 0},
                      method,
                      time.trials,
                      time.picoseconds});
    }
  }
  return rows;
}

}  // namespace routestats
