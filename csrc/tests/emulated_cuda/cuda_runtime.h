#pragma once

// The part of the CUDA runtime and of CUDA C++ that csrc/cuda/ uses, for the host: tests run the
// source of the kernels where there is no device.
//
// - The threads of a block take turns, in a random order for each block. They wait for each other
// at
//   barriers and in warp-wide operations as on a device. A barrier that some threads miss is an
//   error, and so is a launch that no device would accept.
// - A stream does its work as late as it may: when something waits for it. This shows code that
//   reads or frees memory too early.
//
// It does not show speed, races between threads that no barrier separates, CUDA graphs.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)

struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned columns = 1, unsigned rows = 1, unsigned layers = 1)
      : x(columns), y(rows), z(layers) {}
};

namespace emulated_cuda {
struct Stream;
struct Event;
}  // namespace emulated_cuda
using cudaStream_t = emulated_cuda::Stream*;
using cudaEvent_t = emulated_cuda::Event*;

// --- what a thread sees ---

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated_cuda {

void* dynamic_shared();
void wait_for_block();
// The values that the lanes of the warp gave; valid until the next operation of this kind by the
// lane.
const std::uint64_t* exchange(std::uint64_t value);

}  // namespace emulated_cuda

inline void __syncthreads() { emulated_cuda::wait_for_block(); }
inline unsigned __reduce_max_sync(unsigned, unsigned value) {
  const std::uint64_t* values = emulated_cuda::exchange(value);
  unsigned most = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (values[lane] > most) most = static_cast<unsigned>(values[lane]);
  }
  return most;
}
template <class Item>
Item __ldg(const Item* from) {
  return *from;
}
template <class Word>
Word atomicAdd(Word* word, std::type_identity_t<Word> more) {
  const Word before = *word;
  *word += more;
  return before;
}
template <class Word>
Word atomicMin(Word* word, std::type_identity_t<Word> value) {
  const Word before = *word;
  if (value < before) *word = value;
  return before;
}
template <class Word>
Word atomicCAS(Word* word, std::type_identity_t<Word> expected,
               std::type_identity_t<Word> desired) {
  const Word before = *word;
  if (before == expected) *word = desired;
  return before;
}

// --- the runtime ---

#define CUDART_VERSION 0

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidConfiguration,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventBlockingSync = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;
inline constexpr unsigned cudaHostAllocDefault = 0;

struct cudaFuncAttributes {};
struct cudaPointerAttributes {
  int device;
};
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
  std::size_t sharedMemPerBlockOptin, totalGlobalMem;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

namespace emulated_cuda {
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> thread);
void set_dynamic_shared(const void* kernel, std::size_t bytes);

// From now on an allocation of more bytes fails; at first there is no limit.
void limit_allocations(std::size_t bytes);
}  // namespace emulated_cuda

template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  emulated_cuda::set_dynamic_shared(reinterpret_cast<const void*>(kernel),
                                    static_cast<std::size_t>(bytes));
  return cudaSuccess;
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return emulated_cuda::launch(*config, reinterpret_cast<const void*>(kernel),
                               std::bind(kernel, std::remove_cvref_t<Parameters>(arguments)...));
}
