#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace routestats {

// Hands out the numbers 0..items-1, each once. Threads claim one item at a time, so all stay busy
// even when the machine gives them unequal shares.
class ItemQueue {
 public:
  explicit ItemQueue(std::size_t items) : items_(items) {}

  std::optional<std::size_t> next() {
    const std::size_t item = next_.fetch_add(1, std::memory_order_relaxed);
    if (item >= items_) return std::nullopt;
    return item;
  }
  void stop() { next_.store(items_, std::memory_order_relaxed); }

 private:
  const std::size_t items_;
  std::atomic<std::size_t> next_{0};
};

// Threads that are joined when it goes. std::jthread does so, but macOS's C++ library lacked it for
// long.
class Team {
 public:
  Team() = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    for (std::thread& each : threads_) each.join();
  }

  template <class Work>
  void start(const Work& work) {
    threads_.emplace_back(work);
  }
  std::size_t size() const { return threads_.size(); }

 private:
  std::vector<std::thread> threads_;
};

// Calls `worker(queue)` on up to `threads` threads, the calling one among them, and returns when
// all have finished. The first exception of a worker ends the work of the others and is thrown
// here.
template <class Worker>
void run_workers(std::size_t items, unsigned threads, const Worker& worker) {
  ItemQueue queue(items);
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto guarded = [&]() noexcept {
    try {
      worker(queue);
    } catch (...) {
      queue.stop();
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  const std::size_t helpers = std::min<std::size_t>(std::max(threads, 1u), items);
  {
    Team team;
    for (std::size_t i = 1; i < helpers; ++i) team.start(guarded);
    guarded();
  }
  if (failure) std::rethrow_exception(failure);
}

// Calls `phase(number, queue)` for number = 0, 1, ... on up to `threads` threads, the calling one
// among them. All threads wait for each other between phases; this costs far less than new threads.
// One thread calls `items`, while the others wait, to ask how many items a phase has; 0 ends the
// phases. The first exception of a phase or of `items` also ends them and is thrown here.
template <class Items, class Phase>
void run_phases(unsigned threads, const Items& items, const Phase& phase) {
  std::optional<ItemQueue> queue;
  std::size_t number = 0;
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto fail = [&]() noexcept {
    const std::lock_guard lock(failure_mutex);
    if (!failure) failure = std::current_exception();
  };
  const auto prepare = [&]() noexcept {
    queue.reset();
    if (failure) return;
    try {
      if (const std::size_t count = items(number); count > 0) queue.emplace(count);
    } catch (...) {
      fail();
    }
  };
  prepare();
  const std::size_t helpers = std::max(threads, 1u);
  std::barrier finished(static_cast<std::ptrdiff_t>(helpers), [&]() noexcept {
    ++number;
    prepare();
  });
  const auto work = [&]() noexcept {
    while (queue) {
      try {
        phase(number, *queue);
      } catch (...) {
        queue->stop();
        fail();
      }
      finished.arrive_and_wait();
    }
  };
  {
    Team team;
    try {
      for (std::size_t i = 1; queue && i < helpers; ++i) team.start(work);
    } catch (...) {
      // Threads that did not start are not waited for.
      fail();
      for (std::size_t i = team.size() + 1; i < helpers; ++i) finished.arrive_and_drop();
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace routestats
