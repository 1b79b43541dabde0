#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "capture/capture_step.hpp"
#include "capture/ring.hpp"

namespace routestats {

// Memory in which kernels write rows, and its mirror on the host. Every call but `wait` returns at
// once; work takes its place in the engine's stream. Implementations throw CaptureFault where the
// device reports an error.
class StepDevice {
 public:
  using Stream = std::uintptr_t;

  virtual ~StepDevice() = default;

  // Forgets every step of an earlier ring.
  virtual void reset() = 0;
  virtual void begin(const CaptureStep& step, Stream stream) = 0;
  // Tags the rows of the open step, shuts it, and starts to copy it to the mirror.
  virtual void finish(const CaptureStep& step, const RowTags& tags, Stream stream) = 0;
  // Shuts the open step and forgets it: the next one has its number.
  virtual void abandon(const CaptureStep& step, Stream stream) = 0;

  // Returns when the step lies in the mirror.
  virtual void wait(std::uint64_t step) = 0;

  // The mirror: same extents as the ring on the device.
  virtual const std::uint8_t* ids() const = 0;
  virtual const std::uint16_t* weights() const = 0;
  virtual const std::int32_t* tags() const = 0;
  virtual const std::uint64_t* record(std::uint64_t step) const = 0;
};

// CaptureRing's counterpart for routing that is computed on a device: whole steps between one
// engine thread and one draining thread. The engine thread never waits for the device, and only
// before a step for the draining thread (Overflow::block). What was wrong with a step is known when
// it is drained.
class StepRing {
 public:
  using Stream = StepDevice::Stream;

  // `extents` are those of the device's memory; config.capacity, the rows in use at once, may be
  // less.
  StepRing(const RingConfig& config, const RingExtents& extents,
           std::unique_ptr<StepDevice> device);

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

  // Waits for the rows of the steps that `peek` gave and copies them into [rows, layers, top_k]
  // matrices (`weights` may be null) and [rows, 2] tags. The device's memory holds them until
  // `release`, which must come before the next `peek`. Throws CaptureFault for a step that is not
  // complete and valid; none is held then.
  void take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights, std::int32_t* tags);

  // Frees the slots of the rows that were taken; whoever reads them in the device's memory is done.
  void release();

  // --- either ---

  void close() { ledger_.close(); }
  void fail(const std::string& reason) { ledger_.fail(reason); }
  std::uint64_t dropped_rows() const { return ledger_.dropped_rows(); }
  std::uint64_t dropped_steps() const { return ledger_.dropped_steps(); }
  std::uint64_t committed_rows() const { return ledger_.committed_rows(); }

 private:
  void check_record(const Step& step) const;

  const RingConfig config_;
  const RingExtents extents_;
  const std::unique_ptr<StepDevice> device_;
  bool step_open_ = false;
  CaptureStep open_{};
  std::vector<Step> held_;  // taken; the draining thread's
  RingLedger ledger_;
};

}  // namespace routestats
