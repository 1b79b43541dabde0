#include "cuda/step_device.hpp"

#include <algorithm>

#include "cuda/capture.hpp"
#include "cuda/check.hpp"

namespace routestats::cuda {
namespace {

cudaStream_t as_stream(StepDevice::Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }

// The ring's user knows one kind of error.
template <class Body>
void as_capture_fault(Body&& body) {
  try {
    body();
  } catch (const DeviceError& error) {
    throw CaptureFault(error.what());
  }
}

}  // namespace

CudaStepDevice::CudaStepDevice(const CaptureTarget& target, bool fetch_weights)
    : device_(current_device()), target_(target), fetch_weights_(fetch_weights) {
  const std::uint64_t items = target.extents.capacity * target.extents.row_width();
  ids_ = pinned_array<std::uint8_t>(items * target.id_bytes());
  weights_ = pinned_array<std::uint16_t>(fetch_weights ? items : 0);
  tags_ = pinned_array<std::int32_t>(2 * target.extents.capacity);
  control_ = pinned_array<std::uint64_t>(target.layout().words());
  side_ = new_stream();
  for (std::uint32_t i = 0; i < kStepsInFlight; ++i) {
    captured_.push_back(new_event());
    fetched_.push_back(new_event());
  }
  load_capture_kernels();
}

CudaStepDevice::~CudaStepDevice() {
  // Copies under way write into memory that goes with this object.
  cudaStreamSynchronize(side_.get());
}

void CudaStepDevice::reset() {
  check(cudaDeviceSynchronize(), "wait for the device");
  check(cudaMemset(target_.control, 0xff, target_.layout().words() * sizeof(std::uint64_t)),
        "clear the control words");
  launch_shut(target_, nullptr);
  check(cudaDeviceSynchronize(), "clear the control words");
}

void CudaStepDevice::begin(const CaptureStep& step, Stream stream) {
  as_capture_fault([&] { launch_open(target_, step, as_stream(stream)); });
}

void CudaStepDevice::finish(const CaptureStep& step, const RowTags& tags, Stream stream) {
  as_capture_fault([&] {
    const std::uint64_t turn = step.number % kStepsInFlight;
    launch_finish(target_, step, tags, as_stream(stream));
    check(cudaEventRecord(captured_[turn].get(), as_stream(stream)), "record an event");
    check(cudaStreamWaitEvent(side_.get(), captured_[turn].get(), 0), "wait for an event");
    const std::uint64_t until_wrap = target_.extents.contiguous(step.first_slot, step.rows);
    fetch(step.first_slot, until_wrap);
    fetch(0, step.rows - until_wrap);
    const std::uint64_t record = target_.layout().record(step.number);
    check(cudaMemcpyAsync(control_.get() + record, target_.control + record,
                          target_.layout().record_words() * sizeof(std::uint64_t),
                          cudaMemcpyDeviceToHost, side_.get()),
          "fetch the stamps");
    check(cudaEventRecord(fetched_[turn].get(), side_.get()), "record an event");
  });
}

void CudaStepDevice::fetch(std::uint64_t slot, std::uint64_t rows) {
  if (rows == 0) return;
  const std::uint64_t width = target_.extents.row_width();
  const auto copy = [&](void* host, const void* device, std::uint64_t row_bytes) {
    check(cudaMemcpyAsync(static_cast<std::byte*>(host) + slot * row_bytes,
                          static_cast<const std::byte*>(device) + slot * row_bytes,
                          rows * row_bytes, cudaMemcpyDeviceToHost, side_.get()),
          "fetch rows");
  };
  copy(ids_.get(), target_.ids, width * target_.id_bytes());
  copy(tags_.get(), target_.tags, 2 * sizeof(std::int32_t));
  if (fetch_weights_) copy(weights_.get(), target_.weights, width * sizeof(std::uint16_t));
}

void CudaStepDevice::abandon(const CaptureStep& step, Stream stream) {
  as_capture_fault([&] { launch_forget(target_, step, as_stream(stream)); });
}

void CudaStepDevice::wait(std::uint64_t step) {
  as_capture_fault([&] {
    // The draining thread stays on the ring's device: a new thread is on device 0, on which its
    // first call would make a context, whichever device the engine is on.
    if (current_device() != device_) check(cudaSetDevice(device_), "choose the device");
    check(cudaEventSynchronize(fetched_[step % kStepsInFlight].get()), "fetch a step");
  });
}

}  // namespace routestats::cuda
