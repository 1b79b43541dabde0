#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "capture/capture_step.hpp"

// Launchers of the capture kernels: pointers, extents and a stream in, nothing waits.
namespace routestats::cuda {

// Loads the kernels, which must not happen first while a stream is captured.
void load_capture_kernels();

// One MoE layer; may be captured into a graph. Writes the rows of whatever step the control words
// say is open when it runs, and nothing where none is.
void launch_capture(const CaptureTarget& target, const LayerRouting& routing, std::uint32_t layer,
                    cudaStream_t stream);

// Compares what the router of a layer chose with what its kernel chose; may be captured as well.
void launch_compare(const CaptureTarget& target, const TwoChoices& choices, std::uint32_t layer,
                    cudaStream_t stream);

void launch_open(const CaptureTarget& target, const CaptureStep& step, cudaStream_t stream);

// Tags the step's rows and shuts it.
void launch_finish(const CaptureTarget& target, const CaptureStep& step, const RowTags& tags,
                   cudaStream_t stream);

void launch_shut(const CaptureTarget& target, cudaStream_t stream);

// Shuts the step and leaves its number and record to the next one.
void launch_forget(const CaptureTarget& target, const CaptureStep& step, cudaStream_t stream);

}  // namespace routestats::cuda
