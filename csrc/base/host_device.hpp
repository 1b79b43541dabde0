#pragma once

// Functions marked so compile for the host and, under nvcc, for the device as well.
#if defined(__CUDACC__)
#define ROUTESTATS_HOST_DEVICE __host__ __device__
#else
#define ROUTESTATS_HOST_DEVICE
#endif

// Put before a loop whose counter indexes values that must stay in registers of the device.
#if defined(__CUDA_ARCH__)
#define ROUTESTATS_UNROLL _Pragma("unroll")
#else
#define ROUTESTATS_UNROLL
#endif
