#include "capture/ring_ledger.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace routestats {

RingLedger::RingLedger(std::uint64_t capacity, Overflow overflow, std::uint64_t max_steps)
    : capacity_(capacity), overflow_(overflow), max_steps_(max_steps) {}

std::optional<std::uint64_t> RingLedger::reserve(std::uint64_t rows) {
  if (rows > capacity_) {
    throw std::invalid_argument("a step of " + std::to_string(rows) +
                                " rows exceeds the ring's capacity of " +
                                std::to_string(capacity_));
  }
  std::unique_lock lock(mutex_);
  const auto has_room = [&] {
    return head_ - tail_ + rows <= capacity_ && committed_.size() < max_steps_;
  };
  if (overflow_ == Overflow::block) {
    room_.wait(lock, [&] { return has_room() || closed_ || !failure_.empty(); });
  }
  if (!failure_.empty()) throw CaptureFault(failure_);
  if (closed_) throw CaptureFault("the ring is closed");
  if (!has_room()) {
    dropped_rows_ += rows;
    ++dropped_steps_;
    return std::nullopt;
  }
  return head_;
}

void RingLedger::commit(Step step) {
  {
    const std::lock_guard lock(mutex_);
    head_ += step.rows;
    committed_.push_back(step);
  }
  ready_.notify_one();
}

void RingLedger::wait(std::uint64_t min_rows, double seconds) {
  std::unique_lock lock(mutex_);
  // The ring never holds more than this.
  const std::uint64_t wanted = std::clamp<std::uint64_t>(min_rows, 1, capacity_ / 2 + 1);
  const std::uint64_t many_steps = max_steps_ / 2 + 1;
  ready_.wait_for(lock, std::chrono::duration<double>(seconds), [&] {
    return head_ - tail_ >= wanted || committed_.size() >= many_steps || closed_;
  });
}

std::vector<Step> RingLedger::peek(std::uint64_t max_rows) const {
  const std::lock_guard lock(mutex_);
  std::vector<Step> steps;
  std::uint64_t rows = 0;
  for (const Step& step : committed_) {
    if (!steps.empty() && rows + step.rows > max_rows) break;
    rows += step.rows;
    steps.push_back(step);
  }
  return steps;
}

void RingLedger::release(const std::vector<Step>& steps) {
  {
    const std::lock_guard lock(mutex_);
    tail_ += rows_of(steps);
    committed_.erase(committed_.begin(),
                     committed_.begin() + static_cast<std::ptrdiff_t>(steps.size()));
  }
  room_.notify_one();
}

void RingLedger::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  room_.notify_all();
  ready_.notify_all();
}

void RingLedger::fail(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_.empty()) failure_ = reason.empty() ? "the draining side failed" : reason;
  }
  room_.notify_all();
}

std::uint64_t RingLedger::dropped_rows() const {
  const std::lock_guard lock(mutex_);
  return dropped_rows_;
}

std::uint64_t RingLedger::dropped_steps() const {
  const std::lock_guard lock(mutex_);
  return dropped_steps_;
}

std::uint64_t RingLedger::committed_rows() const {
  const std::lock_guard lock(mutex_);
  return head_;
}

std::uint64_t rows_of(const std::vector<Step>& steps) {
  return std::accumulate(steps.begin(), steps.end(), std::uint64_t{0},
                         [](std::uint64_t rows, const Step& step) { return rows + step.rows; });
}

}  // namespace routestats
