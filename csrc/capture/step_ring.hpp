#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "capture/capture_step.hpp"
#include "capture/ring.hpp"

namespace routestats {

// Memory in which kernels write rows, and its mirror on the host. Every call but `wait` returns at
// once, and its work takes its place in the stream of the engine. Implementations throw
// CaptureFault if the device reports an error.
class StepDevice {
 public:
  using Stream = std::uintptr_t;

  virtual ~StepDevice() = default;

  // Forgets all steps of an earlier ring.
  virtual void reset() = 0;
  virtual void begin(const CaptureStep& step, Stream stream) = 0;
  // Tags the rows of the open step, shuts the step, and starts to copy it to the mirror.
  virtual void finish(const CaptureStep& step, const RowTags& tags, Stream stream) = 0;
  // Shuts the open step and forgets it: the next step gets its number.
  virtual void abandon(const CaptureStep& step, Stream stream) = 0;

  // Returns when the step is in the mirror.
  virtual void wait(std::uint64_t step) = 0;

  // The mirror, with the extents of the ring on the device.
  virtual const std::uint8_t* ids() const = 0;
  virtual const std::uint16_t* weights() const = 0;
  virtual const std::int32_t* tags() const = 0;
  virtual const std::uint64_t* record(std::uint64_t step) const = 0;
};

// CaptureRing for routing that is computed on a device: whole steps between one engine thread and
// one draining thread. The engine thread never waits for the device. It waits for the draining
// thread only before a step (Overflow::block). Faults of a step are known when it is drained.
class StepRing {
 public:
  using Stream = StepDevice::Stream;

  // `extents` are those of the memory on the device. config.capacity, the rows in use at once, may
  // be less. `checked_layers`: how many layers of a step are compared with the choice of a kernel.
  StepRing(const RingConfig& config, const RingExtents& extents, std::unique_ptr<StepDevice> device,
           std::uint32_t checked_layers = 0);

  const RingConfig& config() const { return config_; }
  std::uint32_t id_bytes() const { return config_.experts <= 256 ? 1 : 2; }
  StepDevice& device() { return *device_; }

  // --- engine thread ---

  // As CaptureRing::begin_step.
  bool begin_step(std::uint64_t rows, Stream stream);
  std::uint64_t commit_step(const RowTags& tags, Stream stream);
  void abandon_step(Stream stream);
  bool step_open() const { return step_open_; }

  // --- draining thread ---

  void wait(std::uint64_t min_rows, double seconds) { ledger_.wait(min_rows, seconds); }
  std::vector<Step> peek(std::uint64_t max_rows) const { return ledger_.peek(max_rows); }

  // Waits for the rows of the steps that `peek` gave and copies them to [rows, layers, top_k]
  // matrices and [rows, 2] tags; `weights` may be null. The memory of the device holds the rows
  // until `release`, which must come before the next `peek`. Throws CaptureFault for a step that is
  // not complete and valid; then no row is held.
  void take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights, std::int32_t* tags);

  // Frees the slots of the rows that were taken. Nothing may read them on the device any more.
  void release();

  // --- either ---

  void close() { ledger_.close(); }
  void fail(const std::string& reason) { ledger_.fail(reason); }
  std::uint64_t dropped_rows() const { return ledger_.dropped_rows(); }
  std::uint64_t dropped_steps() const { return ledger_.dropped_steps(); }
  std::uint64_t committed_rows() const { return ledger_.committed_rows(); }
  // Choices of taken steps in which router and kernel differ, but only within rounding.
  std::uint64_t near_ties() const { return near_ties_; }

 private:
  // `first_row`: of the step, in the ring.
  void check_record(const Step& step, std::uint64_t first_row) const;
  std::string difference(const std::uint64_t* record, const FaultPlace& place,
                         std::uint64_t first_row) const;

  const RingConfig config_;
  const RingExtents extents_;
  const std::unique_ptr<StepDevice> device_;
  const std::uint32_t checked_layers_;
  bool step_open_ = false;
  CaptureStep open_{};
  std::vector<Step> held_;  // taken steps; only the draining thread uses them
  std::atomic<std::uint64_t> near_ties_ = 0;
  RingLedger ledger_;
};

}  // namespace routestats
