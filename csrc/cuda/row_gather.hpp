#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "capture/capture_step.hpp"
#include "cuda/device_ids.hpp"
#include "cuda/memory.hpp"

namespace routestats::cuda {

// Rows of a ring, side by side in the memory of its device, for whoever counts them there: which
// ones a trace keeps is decided on the host, when the ring still holds them. All work is on one
// stream, which outlives this object; any thread may call, one at a time.
class RowGather {
 public:
  explicit RowGather(cudaStream_t stream);

  // The ids of a ring's slots, [slots, layers, top_k], in memory that is the stream's until the
  // next call. Returns when they have been copied, and the ring may have its slots back.
  IdView gather(const CaptureTarget& ring, const std::vector<std::uint32_t>& slots);

 private:
  const int device_;
  const cudaStream_t stream_;
  StreamScratch<std::uint32_t> slots_;
  StreamScratch<char> ids_;
};

}  // namespace routestats::cuda
