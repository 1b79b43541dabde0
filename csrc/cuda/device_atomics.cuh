#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// What kernels need from the device: shared memory, and atomics for the host/device code.
namespace routestats::cuda {

// A block's shared memory, as large as its launch says.
template <class Item>
__device__ inline Item* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ uint4 dynamic_shared_memory[];
  return reinterpret_cast<Item*>(dynamic_shared_memory);
#else
  return static_cast<Item*>(emulated_cuda::dynamic_shared());
#endif
}

struct DeviceAtomics {
  using Word = unsigned long long;  // what the CUDA atomics call a std::uint64_t
  static_assert(sizeof(Word) == sizeof(std::uint64_t));

  static __device__ void minimum(std::uint64_t* word, std::uint64_t value) {
    atomicMin(reinterpret_cast<Word*>(word), value);
  }
  static __device__ void add(std::uint32_t* cell, std::uint32_t more) { atomicAdd(cell, more); }
  static __device__ void add(std::uint64_t* cell, std::uint64_t more) {
    atomicAdd(reinterpret_cast<Word*>(cell), more);
  }
  static __device__ std::uint64_t swap(std::uint64_t* word, std::uint64_t expected,
                                       std::uint64_t desired) {
    return atomicCAS(reinterpret_cast<Word*>(word), expected, desired);
  }
  static __device__ std::uint32_t next(std::uint32_t* counter) { return atomicAdd(counter, 1u); }
};

}  // namespace routestats::cuda
