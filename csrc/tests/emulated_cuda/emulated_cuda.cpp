#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated_cuda {
namespace {

constexpr std::size_t kStackBytes = 128u << 10;
constexpr std::size_t kOrdinaryShared = 48u << 10;
constexpr std::size_t kMostShared = 227u << 10;
constexpr unsigned kMultiprocessors = 1;

[[noreturn]] void give_up(const char* why) {
  std::fprintf(stderr, "emulated CUDA: %s\n", why);
  std::abort();
}

// --- threads of a block, as contexts that take turns ---

enum class Where { running, at_warp, at_block, done };

struct Warp {
  std::uint64_t values[2][32];  // of every second exchange: a lane is at most one ahead
};

struct Thread {
  ucontext_t
      context;  // in which it begins; from then on it jumps, which asks nothing of the system
  jmp_buf place;
  bool begun = false;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  Where where = Where::done;
  unsigned number = 0;
  unsigned exchanges = 0;
  Warp* warp = nullptr;
};

jmp_buf scheduler;
Thread* current = nullptr;
const std::function<void()>* body = nullptr;
std::vector<std::unique_ptr<Thread>> threads;
alignas(16) char shared_memory[kMostShared];

void wait_at(Where where) {
  current->where = where;
  if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

void run_bodies() {
  for (;;) {
    (*body)();
    wait_at(Where::done);
  }
}

Thread& thread_of(unsigned number) {
  while (threads.size() <= number) {
    auto thread = std::make_unique<Thread>();
    getcontext(&thread->context);
    thread->context.uc_stack.ss_sp = thread->stack.data();
    thread->context.uc_stack.ss_size = kStackBytes;
    thread->context.uc_link = nullptr;
    makecontext(&thread->context, run_bodies, 0);
    threads.push_back(std::move(thread));
  }
  return *threads[number];
}

void resume(Thread& thread) {
  current = &thread;
  thread.where = Where::running;
  threadIdx = dim3(thread.number);
  if (_setjmp(scheduler) != 0) return;
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.context);
}

// Lets those go on that wait for nobody any more; false if there are none.
bool release(unsigned count) {
  bool any = false;
  unsigned at_block = 0;
  unsigned done = 0;
  for (unsigned first = 0; first < count; first += 32) {
    const unsigned last = std::min(first + 32, count);
    unsigned at_warp = 0;
    for (unsigned i = first; i < last; ++i) {
      at_warp += threads[i]->where == Where::at_warp ? 1 : 0;
      at_block += threads[i]->where == Where::at_block ? 1 : 0;
      done += threads[i]->where == Where::done ? 1 : 0;
    }
    // The masks in use name all lanes.
    if (at_warp != 32) continue;
    for (unsigned i = first; i < last; ++i) threads[i]->where = Where::running;
    any = true;
  }
  if (!any && at_block != 0 && at_block + done == count) {
    for (unsigned i = 0; i < count; ++i) {
      if (threads[i]->where == Where::at_block) threads[i]->where = Where::running;
    }
    any = true;
  }
  return any;
}

void run_block(unsigned count, std::mt19937& random) {
  static std::vector<Warp> warps(32);
  std::vector<unsigned> order(count);
  for (unsigned i = 0; i < count; ++i) {
    order[i] = i;
    Thread& thread = thread_of(i);
    thread.where = Where::running;
    thread.number = i;
    thread.exchanges = 0;
    thread.warp = &warps[i / 32];
  }
  std::shuffle(order.begin(), order.end(), random);
  do {
    for (const unsigned i : order) {
      if (threads[i]->where == Where::running) resume(*threads[i]);
    }
  } while (release(count));
  for (unsigned i = 0; i < count; ++i) {
    if (threads[i]->where != Where::done) give_up("some threads wait for others that never come");
  }
}

void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  static std::mt19937 random(0);
  body = &thread;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < gridDim.z; ++z) {
    for (unsigned y = 0; y < gridDim.y; ++y) {
      for (unsigned x = 0; x < gridDim.x; ++x) blocks.emplace_back(x, y, z);
    }
  }
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (const dim3& block : blocks) {
    blockIdx = block;
    std::memset(shared_memory, 0xa5, config.dynamicSmemBytes);
    run_block(blockDim.x, random);
  }
}

}  // namespace

void* dynamic_shared() { return shared_memory; }
void wait_for_block() { wait_at(Where::at_block); }

const std::uint64_t* exchange(std::uint64_t value) {
  std::uint64_t* const values = current->warp->values[current->exchanges++ % 2];
  values[current->number % 32] = value;
  wait_at(Where::at_warp);
  return values;
}

void multiply_bits(std::uint32_t (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                   std::uint32_t b1) {
  // Lane's registers of A are 32 bits each of rows lane / 4 and lane / 4 + 8, from bit
  // 32 * (lane % 4) on, and again 128 bits further on; those of B the same of column lane / 4.
  const auto halves = [](std::uint32_t low, std::uint32_t high) {
    return std::uint64_t{high} << 32 | low;
  };
  const unsigned lane = threadIdx.x % 32;
  std::uint64_t upper[32];
  std::uint64_t lower[32];
  std::uint64_t right[32];
  std::copy_n(exchange(halves(a[0], a[2])), 32, upper);
  std::copy_n(exchange(halves(a[1], a[3])), 32, lower);
  std::copy_n(exchange(halves(b0, b1)), 32, right);
  for (unsigned i = 0; i < 4; ++i) {
    const std::uint64_t* const rows = i < 2 ? upper : lower;
    const unsigned column = lane % 4 * 2 + i % 2;
    for (unsigned part = 0; part < 4; ++part) {
      sum[i] += static_cast<std::uint32_t>(
          __builtin_popcountll(rows[lane / 4 * 4 + part] & right[column * 4 + part]));
    }
  }
}

// --- streams ---

using Work = std::function<void()>;

struct Stream {
  std::deque<Work> waiting;
  std::uint64_t done = 0;  // works

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
  std::uint64_t number = 0;  // works of the stream before it
  std::shared_ptr<std::chrono::steady_clock::time_point> time;
};

namespace {

std::recursive_mutex mutex;
std::set<Stream*> streams;
std::map<const void*, std::size_t> shared_of_kernel;
std::map<const char*, std::size_t> pinned;

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

// Of bytes that nobody may count on.
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
  // And written before it returns.
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
  // Kept: an event may still name it.
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
  event->time = std::make_shared<std::chrono::steady_clock::time_point>();
  enqueue(stream, [time = event->time] { *time = std::chrono::steady_clock::now(); });
  event->stream = of(stream);
  event->number = event->stream->given();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  if (event->stream != nullptr) event->stream->run_until(event->number);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  const std::lock_guard lock(mutex);
  *milliseconds = std::chrono::duration<float, std::milli>(*stop->time - *start->time).count();
  return cudaSuccess;
}
