#pragma once

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

namespace routestats::bindings {

// Readings of the monotonic clock at the beginning and end of clocked calls, step by step. All
// calls hold the GIL, so readings are in the order of time.
class CallClock {
 public:
  struct Mark {
    std::int64_t code;  // of a call that begins; its bitwise complement when it ends
    std::int64_t ns;
  };

  void begin_call(std::int32_t code) noexcept { step_.push_back({code, now_ns()}); }
  void end_call(std::int32_t code) noexcept {
    const std::int64_t at = now_ns();  // before the mark, which may need memory
    step_.push_back({~static_cast<std::int64_t>(code), at});
  }

  void begin_step() { step_.clear(); }
  void end_step() {
    steps_.push_back(step_);
    step_.clear();  // keeps the memory for the next step
  }

  // The marks of the steps that ended since the last call.
  std::vector<std::vector<Mark>> take_steps() { return std::exchange(steps_, {}); }

 private:
  static std::int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

  std::vector<Mark> step_;
  std::vector<std::vector<Mark>> steps_;
};

}  // namespace routestats::bindings
