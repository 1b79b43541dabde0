#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "cuda/check.hpp"

namespace routestats::cuda {

struct FreeDevice {
  void operator()(void* memory) const { cudaFree(memory); }
};
// Takes and frees memory in the order of a stream, so that neither waits for the device: cudaFree
// would stop an engine beside it.
struct FreeOnStream {
  cudaStream_t stream = nullptr;
  void operator()(void* memory) const { cudaFreeAsync(memory, stream); }
};
struct FreePinned {
  void operator()(void* memory) const { cudaFreeHost(memory); }
};
struct DestroyEvent {
  using pointer = cudaEvent_t;
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct DestroyStream {
  using pointer = cudaStream_t;
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};

template <class Item>
using DeviceArray = std::unique_ptr<Item[], FreeDevice>;
template <class Item>
using StreamArray = std::unique_ptr<Item[], FreeOnStream>;
template <class Item>
using PinnedArray = std::unique_ptr<Item[], FreePinned>;
using Event = std::unique_ptr<cudaEvent_t, DestroyEvent>;
using OwnedStream = std::unique_ptr<cudaStream_t, DestroyStream>;

// `items` of undefined value; at least one, so that the pointer is never null.
template <class Item>
DeviceArray<Item> device_array(std::size_t items) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, (items == 0 ? 1 : items) * sizeof(Item)), "allocate device memory");
  return DeviceArray<Item>(static_cast<Item*>(memory));
}

// The same in a stream's order; the stream outlives it.
template <class Item>
StreamArray<Item> stream_array(std::size_t items, cudaStream_t stream) {
  void* memory = nullptr;
  check(cudaMallocAsync(&memory, (items == 0 ? 1 : items) * sizeof(Item), stream),
        "allocate device memory");
  return StreamArray<Item>(static_cast<Item*>(memory), FreeOnStream{stream});
}

template <class Item>
PinnedArray<Item> pinned_array(std::size_t items) {
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, (items == 0 ? 1 : items) * sizeof(Item), cudaHostAllocDefault),
        "allocate pinned memory");
  return PinnedArray<Item>(static_cast<Item*>(memory));
}

// Scratch memory of a stream. It grows with what the calls need: batches of a live capture come in
// all sizes.
template <class Item>
class StreamScratch {
 public:
  // Room for `items` items of undefined value. Where it must grow it doubles, up to `most` items,
  // which a caller may still ask to exceed.
  Item* reserve(std::uint64_t items, std::uint64_t most, cudaStream_t stream) {
    if (items <= items_) return memory_.get();
    const std::uint64_t more = std::max({items, std::min(2 * items_, most), std::uint64_t{1}});
    // Freed first, so that the new memory may be the same.
    memory_.reset();
    items_ = 0;
    memory_ = stream_array<Item>(more, stream);
    items_ = more;
    return memory_.get();
  }
  void give_back() {
    memory_.reset();
    items_ = 0;
  }
  Item* get() const { return memory_.get(); }

 private:
  std::uint64_t items_ = 0;
  StreamArray<Item> memory_;
};

inline int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "find the device");
  return device;
}

// Makes a device the current one of this thread while it lives. Each thread has its own current
// device, at first device 0.
class OnDevice {
 public:
  explicit OnDevice(int device) : before_(current_device()) {
    if (device != before_) check(cudaSetDevice(device), "choose the device");
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  const int before_;
};

// An event whose waiters do not spin, and which keeps no time.
inline Event new_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
        "create an event");
  return Event(event);
}

// A stream that does not wait for the legacy default stream.
inline OwnedStream new_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "create a stream");
  return OwnedStream(stream);
}

}  // namespace routestats::cuda
