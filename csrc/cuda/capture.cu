#include "cuda/capture.hpp"
#include "cuda/device_atomics.cuh"
#include "cuda/launch.hpp"

namespace routestats::cuda {
namespace {

// One thread per row and slot: neighbouring threads read neighbouring ids, and no thread needs an
// array. `choices` is the launch's rows times top_k, of which the step may use fewer. As few blocks
// as one at a time: for more the compiler would spill registers on sm_100.
__global__ void __launch_bounds__(kThreads, 1) capture(const __grid_constant__ CaptureTarget target,
                                                       const __grid_constant__ LayerRouting routing,
                                                       std::uint32_t layer, std::uint32_t choices) {
  const std::uint32_t index = blockIdx.x * kThreads + threadIdx.x;
  const CaptureStep step = open_step_of(target);
  if (index == 0) stamp_layer(target, step, layer, routing.rows);
  if (index >= choices) return;
  const std::uint32_t row = index / target.extents.top_k;
  capture_choice<DeviceAtomics>(target, step, routing, layer, row,
                                index - row * target.extents.top_k);
}

// One thread per row. `rows`: those of the launch, of which the step may use fewer. As few blocks
// as one at a time: for more the compiler would spill registers.
__global__ void __launch_bounds__(kThreads, 1)
    compare(const __grid_constant__ CaptureTarget target,
            const __grid_constant__ TwoChoices choices, std::uint32_t layer, std::uint32_t rows) {
  const std::uint32_t row = blockIdx.x * kThreads + threadIdx.x;
  const CaptureStep step = open_step_of(target);
  if (row == 0) note_checked<DeviceAtomics>(target, step, choices.rows);
  if (row < rows) check_choice<DeviceAtomics>(target, step, choices, layer, row);
}

__global__ void open(const __grid_constant__ CaptureTarget target,
                     const __grid_constant__ CaptureStep step) {
  open_step(target, step);
}

__global__ void __launch_bounds__(kThreads)
    finish(const __grid_constant__ CaptureTarget target, const __grid_constant__ CaptureStep step,
           const __grid_constant__ RowTags tags) {
  const std::uint32_t row = blockIdx.x * kThreads + threadIdx.x;
  if (row == 0) shut_step(target);
  if (row < step.rows) tag_row(target, step, tags, row);
}

__global__ void shut(const __grid_constant__ CaptureTarget target) { shut_step(target); }

__global__ void forget(const __grid_constant__ CaptureTarget target,
                       const __grid_constant__ CaptureStep step) {
  forget_step(target, step);
}

unsigned blocks_of(std::uint64_t threads) {
  return static_cast<unsigned>(threads == 0 ? 1 : (threads + kThreads - 1) / kThreads);
}

// Rows past the ring's capacity are padding of a launch: no step has so many.
std::uint64_t rows_of_launch(const CaptureTarget& target, std::uint64_t rows) {
  return rows < target.extents.capacity ? rows : target.extents.capacity;
}

}  // namespace

void load_capture_kernels() {
  const auto load_all = [](auto*... kernels) {
    (load_kernel(kernels, "load the capture kernels"), ...);
  };
  load_all(capture, compare, open, finish, shut, forget);
}

void launch_capture(const CaptureTarget& target, const LayerRouting& routing, std::uint32_t layer,
                    cudaStream_t stream) {
  const auto choices =
      static_cast<std::uint32_t>(rows_of_launch(target, routing.rows) * target.extents.top_k);
  launch("capture a layer", stream, {blocks_of(choices)}, capture, target, routing, layer, choices);
}

void launch_compare(const CaptureTarget& target, const TwoChoices& choices, std::uint32_t layer,
                    cudaStream_t stream) {
  const auto rows = static_cast<std::uint32_t>(rows_of_launch(target, choices.rows));
  launch("compare a layer", stream, {blocks_of(rows)}, compare, target, choices, layer, rows);
}

void launch_open(const CaptureTarget& target, const CaptureStep& step, cudaStream_t stream) {
  launch("open a step", stream, {1, 1}, open, target, step);
}

void launch_finish(const CaptureTarget& target, const CaptureStep& step, const RowTags& tags,
                   cudaStream_t stream) {
  launch("finish a step", stream, {blocks_of(step.rows)}, finish, target, step, tags);
}

void launch_shut(const CaptureTarget& target, cudaStream_t stream) {
  launch("shut a step", stream, {1, 1}, shut, target);
}

void launch_forget(const CaptureTarget& target, const CaptureStep& step, cudaStream_t stream) {
  launch("forget a step", stream, {1, 1}, forget, target, step);
}

}  // namespace routestats::cuda
