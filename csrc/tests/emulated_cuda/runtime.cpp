#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "tests/emulated_cuda/grid.hpp"

namespace emulated_cuda {
namespace {

constexpr std::size_t kOrdinaryShared = 48u << 10;
constexpr unsigned kMultiprocessors = 1;

}  // namespace

// --- streams ---

using Work = std::function<void()>;

struct Stream {
  std::deque<Work> waiting;
  std::uint64_t done = 0;  // pieces of work

  std::uint64_t given() const { return done + waiting.size(); }
  void run_until(std::uint64_t number) {
    while (done < number) {
      const Work work = std::move(waiting.front());
      waiting.pop_front();
      ++done;
      work();
    }
  }
};

struct Event {
  Stream* stream = nullptr;  // null: never recorded
  std::uint64_t number = 0;  // pieces of work of the stream before it
};

namespace {

std::recursive_mutex mutex;
// Never destroyed, because an event may name a stream that is gone.
std::set<Stream*>& streams = *new std::set<Stream*>;
std::map<const void*, std::size_t> shared_of_kernel;
std::map<const char*, std::size_t> pinned;
std::size_t largest_allocation = ~std::size_t{0};

Stream* of(Stream* stream) {
  static Stream* const legacy = [] {
    auto* made = new Stream;
    streams.insert(made);
    return made;
  }();
  return stream == nullptr ? legacy : stream;
}

void enqueue(Stream* stream, Work work) { of(stream)->waiting.push_back(std::move(work)); }

void run_all() {
  of(nullptr);
  for (Stream* stream : streams) stream->run_until(stream->given());
}

bool is_pinned(const void* memory) {
  const auto* const byte = static_cast<const char*>(memory);
  const auto after = pinned.upper_bound(byte);
  if (after == pinned.begin()) return false;
  const auto& [first, bytes] = *std::prev(after);
  return byte < first + bytes;
}

// Memory of arbitrary bytes.
void* new_memory(std::size_t bytes) {
  static std::minstd_rand random;
  const std::lock_guard lock(mutex);
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes) != 0) return nullptr;
  std::generate_n(static_cast<char*>(memory), bytes,
                  [] { return static_cast<char>(random() >> 8); });
  return memory;
}

}  // namespace

void set_dynamic_shared(const void* kernel, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  shared_of_kernel[kernel] = bytes;
}

void limit_allocations(std::size_t bytes) { largest_allocation = bytes; }

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, Work thread) {
  const std::lock_guard lock(mutex);
  const dim3& grid = config.gridDim;
  const auto allowed = shared_of_kernel.find(kernel);
  const std::size_t most = std::max(
      kOrdinaryShared, allowed == shared_of_kernel.end() ? std::size_t{0} : allowed->second);
  const bool fits = grid.x - 1u < 0x7fffffffu && grid.y - 1u < 65'535u && grid.z - 1u < 65'535u &&
                    config.blockDim.x - 1u < 1024u && config.blockDim.y == 1 &&
                    config.blockDim.z == 1 &&
                    config.dynamicSmemBytes <= std::min(most, kMostShared);
  if (!fits) return cudaErrorInvalidConfiguration;
  enqueue(config.stream, [config, thread = std::move(thread)] { run_grid(config, thread); });
  return cudaSuccess;
}

}  // namespace emulated_cuda

using namespace emulated_cuda;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidValue:
      break;
  }
  return "invalid argument";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? static_cast<int>(kMultiprocessors)
                                                       : static_cast<int>(kMostShared);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {
      "emulated",          9, 0, static_cast<int>(kMultiprocessors), 1 << 20, kMostShared,
      std::size_t{1} << 30};
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  attributes->device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard lock(mutex);
  run_all();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (bytes > largest_allocation) return cudaErrorMemoryAllocation;
  *memory = new_memory(bytes);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  cudaDeviceSynchronize();
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(memory, bytes);
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  enqueue(stream, [memory] { std::free(memory); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  const std::lock_guard lock(mutex);
  *memory = new_memory(bytes);
  pinned[static_cast<const char*>(*memory)] = bytes;
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  const std::lock_guard lock(mutex);
  run_all();
  pinned.erase(static_cast<const char*>(memory));
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  enqueue(nullptr, [=] { std::memset(memory, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  enqueue(stream, [=] { std::memset(memory, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) {
    // Pageable memory is read before the call returns.
    const auto* const first = static_cast<const char*>(from);
    enqueue(stream, [to, copy = std::vector<char>(first, first + bytes)] {
      std::copy(copy.begin(), copy.end(), static_cast<char*>(to));
    });
    return cudaSuccess;
  }
  enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  // It is written before the call returns, too.
  if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) of(stream)->run_until(of(stream)->given());
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(mutex);
  *stream = new Stream;
  streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  stream->run_until(stream->given());
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  of(stream)->run_until(of(stream)->given());
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(mutex);
  if (event->stream == nullptr) return cudaSuccess;
  enqueue(stream, [other = event->stream, number = event->number] { other->run_until(number); });
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  event->stream = of(stream);
  event->number = event->stream->given();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  if (event->stream != nullptr) event->stream->run_until(event->number);
  return cudaSuccess;
}
