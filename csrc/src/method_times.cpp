#include "routestats/method_times.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace routestats {
namespace {

// Estimates may be wrong by a factor of ten, but not by this one.
constexpr double kNoTrial = 50;
// A method so much slower than the fastest is not tried again.
constexpr double kNoSecondTrial = 4;

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
  double least = 0;
  DeviceMethod fastest = DeviceMethod::scatter;  // always possible
  for (const auto& [method, time] : times) {
    if (least != 0 && time.picoseconds >= least) continue;
    least = time.picoseconds;
    fastest = method;
  }
  const std::vector<DeviceMethod> worth_a_trial = candidates(sized);
  for (unsigned round = 0; round < kTrials; ++round) {
    for (const DeviceMethod method : worth_a_trial) {
      const auto time = times.find(method);
      if (time == times.end()) return {method, true};
      const bool hopeless = time->second.picoseconds > kNoSecondTrial * least;
      if (time->second.trials == round && !hopeless) return {method, true};
    }
  }
  return {fastest, false};
}

void MethodTimes::add(int device, const DeviceWork& work, DeviceMethod method, std::uint64_t tokens,
                      double milliseconds) {
  const double picoseconds = per_token_and_pair(work, tokens, milliseconds);
  const std::lock_guard lock(mutex_);
  Time& time = times_[key_of(device, work)][method];
  time.picoseconds = time.trials == 0 ? picoseconds : std::min(time.picoseconds, picoseconds);
  ++time.trials;
}

std::vector<MethodTimes::Row> MethodTimes::rows() const {
  const std::lock_guard lock(mutex_);
  std::vector<Row> rows;
  for (const auto& [key, times] : times_) {
    const auto& [device, layers, pairs, experts, slots, distinct, tokens] = key;
    for (const auto& [method, time] : times) {
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
