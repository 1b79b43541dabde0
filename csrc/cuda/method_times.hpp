#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "cuda/device_method.hpp"

namespace routestats {

// Which method counts fastest on a device is found out there, while it counts: the first tokens of
// a shape go through one method after the other, each of which counts its own and is timed, and
// all others through the fastest. No token is counted for a trial alone. Any thread may call.
class MethodTimes {
 public:
  // Tokens of a trial, where there are as many: with fewer, a large device is not full.
  static constexpr std::uint64_t kTrialTokens = 1u << 19;
  // Trials per method, of which the faster counts.
  static constexpr unsigned kTrials = 2;

  struct Choice {
    DeviceMethod method;
    bool trial;            // count a trial's tokens with it, and tell `add` how long that took
    DeviceMethod fastest;  // so far; for tokens that are too few for a trial
  };
  // For the next tokens of `work`, whose `tokens` are those of the whole call.
  Choice choose(int device, const DeviceWork& work) const;

  void add(int device, const DeviceWork& work, DeviceMethod method, std::uint64_t tokens,
           double milliseconds);

  // The device has not the memory for the method; it is not chosen again.
  void rule_out(int device, const DeviceWork& work, DeviceMethod method);

  // What was measured.
  struct Row {
    int device;
    // `tokens`: of calls of at most so many and more than half of them, or, where it is
    // kTrialTokens, of all larger ones.
    DeviceWork work;
    DeviceMethod method;
    unsigned trials;
    double picoseconds;  // per token and pair of layers
  };
  std::vector<Row> rows() const;

 private:
  struct Time {
    unsigned trials = 0;
    double picoseconds = 0;   // the least
    double milliseconds = 0;  // of the last
    bool ruled_out = false;
  };
  // Device, layers, pairs, experts, slots, distinct, and tokens as a power of two.
  using Key = std::tuple<int, std::uint32_t, std::uint64_t, std::uint32_t, std::uint32_t, bool,
                         std::uint64_t>;
  using Times = std::map<DeviceMethod, Time>;

  static Key key_of(int device, const DeviceWork& work);

  mutable std::mutex mutex_;
  std::map<Key, Times> times_;
};

}  // namespace routestats
