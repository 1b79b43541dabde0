#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "routestats/device_method.hpp"

namespace routestats {

// Which method counts fastest on a device is found out there, while it counts: the first tokens of
// a shape go through one method after the other, each of which counts its own and is timed, and
// all others through the fastest. No token is counted for a trial alone. Any thread may call.
class MethodTimes {
 public:
  // Tokens of a trial, where there are as many.
  static constexpr std::uint64_t kTrialTokens = 65'536;
  // Trials per method, of which the fastest counts: the first one also takes memory.
  static constexpr unsigned kTrials = 3;

  struct Choice {
    DeviceMethod method;
    bool trial;  // count up to kTrialTokens with it, and tell `add` how long that took
  };
  // For the next tokens of `work`, whose `tokens` are those of the whole call.
  Choice choose(int device, const DeviceWork& work) const;

  void add(int device, const DeviceWork& work, DeviceMethod method, std::uint64_t tokens,
           double milliseconds);

  // What was measured.
  struct Row {
    int device;
    DeviceWork work;  // its tokens: at most, and more than half of them
    DeviceMethod method;
    unsigned trials;
    double picoseconds;  // per token and pair of layers
  };
  std::vector<Row> rows() const;

 private:
  struct Time {
    unsigned trials = 0;
    double picoseconds = 0;
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
