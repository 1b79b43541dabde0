#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "capture/ring_index.hpp"
#include "capture/ring_ledger.hpp"
#include "capture/routing_input.hpp"

namespace routestats {

struct RingConfig {
  std::uint32_t layers;
  std::uint32_t experts;
  std::uint32_t top_k;
  std::uint64_t capacity;  // rows
  bool weights;            // keep them; they order the ids either way
  Overflow overflow;
};

// The same config, or std::invalid_argument, which names what is wrong with it.
const RingConfig& checked(const RingConfig& config);

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

  // See RingLedger.
  void wait(std::uint64_t min_rows, double seconds) { ledger_.wait(min_rows, seconds); }
  std::vector<Step> peek(std::uint64_t max_rows) const { return ledger_.peek(max_rows); }

  // Copies the rows of the steps that `peek` gave into [rows, layers, top_k] matrices (`weights`
  // may be null) and frees their slots.
  void take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights);

  // --- either ---

  // No more steps; a blocked begin_step throws.
  void close() { ledger_.close(); }
  // The draining side cannot go on: the next begin_step throws this.
  void fail(const std::string& reason) { ledger_.fail(reason); }

  std::uint64_t dropped_rows() const { return ledger_.dropped_rows(); }
  std::uint64_t dropped_steps() const { return ledger_.dropped_steps(); }
  std::uint64_t committed_rows() const { return ledger_.committed_rows(); }

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

  RingLedger ledger_;
};

}  // namespace routestats
