#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "capture/step_ring.hpp"
#include "cuda/memory.hpp"

namespace routestats::cuda {

// The ring's memory on the current CUDA device; it belongs to the caller and outlives this object
// and every graph that was captured over it. Rows travel to pinned memory on a stream of their own,
// behind an event of the engine's stream.
class CudaStepDevice final : public StepDevice {
 public:
  // `fetch_weights`: whether weights travel too.
  CudaStepDevice(const CaptureTarget& target, bool fetch_weights);
  ~CudaStepDevice() override;

  void reset() override;
  void begin(const CaptureStep& step, Stream stream) override;
  void finish(const CaptureStep& step, const RowTags& tags, Stream stream) override;
  void abandon(const CaptureStep& step, Stream stream) override;
  void wait(std::uint64_t step) override;

  const std::uint8_t* ids() const override { return ids_.get(); }
  const std::uint16_t* weights() const override { return weights_.get(); }
  const std::int32_t* tags() const override { return tags_.get(); }
  const std::uint64_t* record(std::uint64_t step) const override {
    return control_.get() + target_.layout().record(step);
  }

 private:
  void fetch(std::uint64_t slot, std::uint64_t rows);

  const int device_;
  const CaptureTarget target_;
  const bool fetch_weights_;
  PinnedArray<std::uint8_t> ids_;
  PinnedArray<std::uint16_t> weights_;
  PinnedArray<std::int32_t> tags_;
  PinnedArray<std::uint64_t> control_;
  OwnedStream side_;
  std::vector<Event> captured_;  // by step % kStepsInFlight: the engine's stream has run it
  std::vector<Event> fetched_;   // and it has arrived
};

}  // namespace routestats::cuda
