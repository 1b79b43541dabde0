#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "routestats/ring_index.hpp"

namespace routestats {

// What capture got from the engine is not a complete, valid step.
class CaptureFault : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Overflow { block, drop };
enum class IdType { i32, i64 };
enum class WeightType { f32, f16, bf16 };

struct RingConfig {
  std::uint32_t layers;
  std::uint32_t experts;
  std::uint32_t top_k;
  std::uint64_t capacity;  // rows
  bool weights;            // keep them; they order the ids either way
  Overflow overflow;
};

// What a router chose for `rows` tokens at one layer: two row-major [rows, top_k] matrices.
struct LayerRouting {
  const void* ids;
  IdType id_type;
  const void* weights;
  WeightType weight_type;
  std::uint64_t rows;
};

struct Step {
  std::uint64_t number;
  std::uint64_t rows;
};

// A bounded buffer of complete rows between one engine thread and one draining thread.
//
// The engine thread opens a step of a known number of rows, writes each layer once, and commits.
// Nothing is visible to the draining thread before the commit, and a commit succeeds only if every
// layer of the step was written and every id was valid. Outside a step writes are ignored: that is
// how warm-up, profiling and graph capture stay out.
class CaptureRing {
 public:
  explicit CaptureRing(const RingConfig& config);

  CaptureRing(const CaptureRing&) = delete;
  CaptureRing& operator=(const CaptureRing&) = delete;

  const RingConfig& config() const { return config_; }
  std::uint32_t id_bytes() const { return config_.experts <= 256 ? 1 : 2; }

  // --- engine thread ---

  // Opens the next step. With Overflow::block it waits for room; with Overflow::drop it returns
  // false when there is none, and the step's rows are counted as dropped. Throws CaptureFault when
  // the ring has failed or was closed, std::invalid_argument when `rows` exceeds the capacity.
  bool begin_step(std::uint64_t rows);

  // Writes the open step's rows of one layer; rows beyond the step's (padding) are ignored. A fault
  // is kept for commit_step, so that this can be called where nothing may throw.
  void write_layer(std::uint32_t layer, const LayerRouting& routing) noexcept;

  // Hands the step over and returns its number; on a fault the step is discarded and CaptureFault
  // says what was wrong.
  std::uint64_t commit_step();
  void abandon_step() noexcept;
  bool step_open() const { return step_open_; }

  // --- draining thread ---

  // Waits until at least `min_rows` are committed, the ring is closed, or `seconds` have passed.
  // Returns the rows that can be drained.
  std::uint64_t wait(std::uint64_t min_rows, double seconds);

  // The oldest committed steps, as many as fit `max_rows` but at least one if there is any.
  std::vector<Step> peek(std::uint64_t max_rows);

  // Copies the rows of the steps that `peek` gave into [rows, layers, top_k] matrices (`weights`
  // may be null) and frees their slots.
  void take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights);

  // --- either ---

  // No more steps; a blocked begin_step throws.
  void close();
  // The draining side cannot go on: the next begin_step throws this.
  void fail(const std::string& reason);

  std::uint64_t dropped_rows() const;
  std::uint64_t dropped_steps() const;
  std::uint64_t committed_rows() const;

 private:
  template <class Id>
  void store_layer(std::uint32_t layer, const LayerRouting& routing);
  void note_fault(std::string what);

  const RingConfig config_;
  const RingExtents extents_;
  std::vector<std::uint8_t> ids_;
  std::vector<std::uint16_t> weights_;

  // The open step, touched by the engine thread alone.
  bool step_open_ = false;
  std::uint64_t step_number_ = 0;
  std::uint64_t step_rows_ = 0;
  std::uint64_t step_first_row_ = 0;
  std::vector<std::uint64_t> layer_stamps_;  // number of the step that last wrote the layer, plus 1
  std::string fault_;

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

}  // namespace routestats
