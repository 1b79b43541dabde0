#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "capture/step_ring.hpp"

namespace routestats {

// The work of the kernels, compiled for the host, one thread after another. It compares the logic
// of a device with the ring of the host where there is no device. A step is copied to the mirror
// when it is waited for, which is as late as a device may do it.
class EmulatedStepDevice final : public StepDevice {
 public:
  explicit EmulatedStepDevice(const CaptureTarget& target);

  void reset() override;
  void begin(const CaptureStep& step, Stream stream) override;
  void finish(const CaptureStep& step, const RowTags& tags, Stream stream) override;
  void abandon(const CaptureStep& step, Stream stream) override;
  void wait(std::uint64_t step) override;

  const std::uint8_t* ids() const override { return ids_.data(); }
  const std::uint16_t* weights() const override { return weights_.data(); }
  const std::int32_t* tags() const override { return tags_.data(); }
  const std::uint64_t* record(std::uint64_t step) const override {
    return records_.data() + target_.layout().record(step);
  }

 private:
  const CaptureTarget target_;
  std::vector<std::uint8_t> ids_;
  std::vector<std::uint16_t> weights_;
  std::vector<std::int32_t> tags_;
  std::vector<std::uint64_t> records_;
  std::map<std::uint64_t, CaptureStep> waiting_;
  std::mutex mutex_;
};

// The kernels of one layer: capture, and the check against what its kernel chose.
void emulate_capture(const CaptureTarget& target, const LayerRouting& routing, std::uint32_t layer);
void emulate_check(const CaptureTarget& target, const TwoChoices& choices, std::uint32_t layer);

}  // namespace routestats
