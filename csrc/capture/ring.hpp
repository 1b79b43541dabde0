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
  bool weights;            // keep weights; they order the ids in any case
  Overflow overflow;
};

// Returns the config. Throws std::invalid_argument, which names what is wrong with it.
const RingConfig& checked(const RingConfig& config);

// A bounded buffer of complete rows between one engine thread and one draining thread.
//
// The engine thread opens a step of a known number of rows, writes each layer once, and commits.
// The draining thread sees nothing before the commit. A commit succeeds only if every layer of the
// step was written and every id was valid. Outside a step writes are ignored: this keeps warm-up,
// profiling and graph capture out.
class CaptureRing {
 public:
  explicit CaptureRing(const RingConfig& config);

  CaptureRing(const CaptureRing&) = delete;
  CaptureRing& operator=(const CaptureRing&) = delete;

  const RingConfig& config() const { return config_; }
  std::uint32_t id_bytes() const { return config_.experts <= 256 ? 1 : 2; }
  std::uint64_t memory_bytes() const {
    return ids_.size() + weights_.size() * sizeof(std::uint16_t);
  }

  // --- engine thread ---

  // Opens the next step. If there is no room it waits with Overflow::block; with Overflow::drop it
  // counts the rows of the step as dropped and returns false. Throws CaptureFault if the ring has
  // failed or was closed, std::invalid_argument if `rows` exceeds the capacity.
  bool begin_step(std::uint64_t rows);

  // Writes the rows of one layer in the open step. Rows beyond those of the step are padding and
  // ignored. A fault is kept for commit_step, because this is called where nothing may throw.
  void write_layer(std::uint32_t layer, const LayerRouting& routing) noexcept;

  // Hands the step over and returns its number. On a fault it discards the step and throws
  // CaptureFault, which says what was wrong.
  std::uint64_t commit_step();
  void abandon_step() noexcept;
  bool step_open() const { return step_open_; }

  // --- draining thread ---

  // See RingLedger.
  void wait(std::uint64_t min_rows, double seconds) { ledger_.wait(min_rows, seconds); }
  std::vector<Step> peek(std::uint64_t max_rows) const { return ledger_.peek(max_rows); }

  // Copies the rows of the steps that `peek` gave to [rows, layers, top_k] matrices and frees their
  // slots. `weights` may be null.
  void take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights);

  // --- either ---

  // No more steps; a blocked begin_step throws.
  void close() { ledger_.close(); }
  // The draining thread cannot go on: the next begin_step throws this reason.
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

  // The open step; only the engine thread uses it.
  bool step_open_ = false;
  std::uint64_t step_number_ = 0;
  std::uint64_t step_rows_ = 0;
  std::uint64_t step_first_row_ = 0;
  std::vector<std::uint64_t> layer_stamps_;  // number of the step that last wrote the layer, plus 1
  std::string fault_;

  RingLedger ledger_;
};

}  // namespace routestats
