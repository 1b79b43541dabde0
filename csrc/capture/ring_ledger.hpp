#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace routestats {

// Capture got something from the engine that is no complete, valid step.
class CaptureFault : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Overflow { block, drop };

struct Step {
  std::uint64_t number;
  std::uint64_t rows;
};

// The owners of the rows of a bounded ring: free room for the engine thread, committed steps for
// the draining thread, and the number of dropped rows. It does not know where the rows lie.
class RingLedger {
 public:
  // Room for `capacity` rows and, if rows arrive after the commit of their step, for `max_steps`
  // steps.
  RingLedger(std::uint64_t capacity, Overflow overflow,
             std::uint64_t max_steps = ~std::uint64_t{0});

  // --- engine thread ---

  // The number of the first row of the step, or nothing if the step was dropped for lack of room.
  // With Overflow::block it waits for room. Throws CaptureFault if the ring has failed or was
  // closed, std::invalid_argument if `rows` exceeds the capacity.
  std::optional<std::uint64_t> reserve(std::uint64_t rows);
  void commit(Step step);

  // --- draining thread ---

  // Waits until at least `min_rows` rows are committed, the ring is closed, or `seconds` have
  // passed.
  void wait(std::uint64_t min_rows, double seconds);
  // The oldest committed steps, as many as fit `max_rows`, but at least one if there is one.
  std::vector<Step> peek(std::uint64_t max_rows) const;
  // The first row that is not released. Only the draining thread changes it.
  std::uint64_t tail() const { return tail_; }
  // Frees the rows of the steps that `peek` gave.
  void release(const std::vector<Step>& steps);

  // --- either ---

  void close();
  void fail(const std::string& reason);
  std::uint64_t dropped_rows() const;
  std::uint64_t dropped_steps() const;
  std::uint64_t committed_rows() const;

 private:
  const std::uint64_t capacity_;
  const Overflow overflow_;
  const std::uint64_t max_steps_;

  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable ready_;
  std::deque<Step> committed_;
  std::uint64_t head_ = 0;  // rows committed
  std::uint64_t tail_ = 0;  // rows drained
  std::uint64_t dropped_rows_ = 0;
  std::uint64_t dropped_steps_ = 0;
  bool closed_ = false;
  std::string failure_;
};

std::uint64_t rows_of(const std::vector<Step>& steps);

}  // namespace routestats
