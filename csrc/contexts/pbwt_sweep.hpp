#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "base/workers.hpp"
#include "contexts/pbwt.hpp"

namespace routestats {

// Each step needs the one before it; reads of a step do not need each other. While one thread
// steps, the others read. A free thread steps if that is possible, else it reads. More threads than
// this would wait.
inline constexpr unsigned kMostSweepThreads = 4;

// Calls `step(i)` for i = 0, 1, ..., steps - 1 in turn; each call makes one step of `sorted`. Calls
// `read(worker, i, order, lengths)` on the result of step i, in any order and on any of the
// workers, which are numbered from 0.
template <class Length, class Step, class Read>
class PbwtSweep {
 public:
  PbwtSweep(Pbwt<Length>& sorted, std::size_t steps, const Step& step, const Read& read)
      : sorted_(sorted), steps_(steps), step_(step), read_(read), kept_(steps) {}

  void run(unsigned threads) {
    const unsigned team = std::min(threads, kMostSweepThreads);
    // A result stays in the transform until the second step after it. A thread that reads longer
    // takes the arrays out of the transform and leaves some of these there.
    for (unsigned i = 0; i < team; ++i) spare_.emplace_back(sorted_.order().size());
    run_workers(team, team, [this](ItemQueue& queue) {
      if (const auto item = queue.next()) work(*item);
    });
  }

 private:
  using Arrays = typename Pbwt<Length>::Arrays;
  struct Result {
    std::size_t number;
    std::span<const std::uint32_t> order;
    std::span<const Length> lengths;
  };
  struct Kept {
    bool read = false;
    Arrays arrays{0};  // taken out of the transform
  };

  void work(std::size_t worker) {
    std::unique_lock lock(mutex_);
    try {
      while (!failed_ && reads_ < steps_) {
        if (may_step()) {
          step(lock);
        } else if (!unread_.empty()) {
          read(worker, lock);
        } else {
          changed_.wait(lock);
        }
      }
    } catch (...) {
      if (!lock) lock.lock();
      failed_ = true;
      changed_.notify_all();
      throw;
    }
  }

  // Whether no other thread steps and there are arrays for a step.
  bool may_step() const {
    if (stepping_ || next_ == steps_) return false;
    return next_ < 2 || kept_[next_ - 2].read || !spare_.empty();
  }

  void step(std::unique_lock<std::mutex>& lock) {
    const std::size_t number = next_;
    if (number >= 2 && !kept_[number - 2].read) {
      std::swap(kept_[number - 2].arrays, spare_.back());
      spare_.pop_back();
      sorted_.exchange_spare(kept_[number - 2].arrays);
    }
    stepping_ = true;
    lock.unlock();
    step_(number);
    lock.lock();
    stepping_ = false;
    ++next_;
    unread_.push_back({number, sorted_.order(), sorted_.lengths()});
    changed_.notify_all();
  }

  void read(std::size_t worker, std::unique_lock<std::mutex>& lock) {
    const Result result = unread_.front();
    unread_.pop_front();
    lock.unlock();
    read_(worker, result.number, result.order, result.lengths);
    lock.lock();
    Kept& kept = kept_[result.number];
    kept.read = true;
    if (!kept.arrays.order.empty()) spare_.push_back(std::move(kept.arrays));
    ++reads_;
    changed_.notify_all();
  }

  Pbwt<Length>& sorted_;
  const std::size_t steps_;
  const Step& step_;
  const Read& read_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t next_ = 0;
  bool stepping_ = false;
  bool failed_ = false;
  std::size_t reads_ = 0;
  std::deque<Result> unread_;
  std::vector<Kept> kept_;     // by step
  std::vector<Arrays> spare_;  // not in use
};

}  // namespace routestats
