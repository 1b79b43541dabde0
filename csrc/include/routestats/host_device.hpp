#pragma once

// Functions marked so compile for the host and, under nvcc, for the device as well.
#if defined(__CUDACC__)
#define ROUTESTATS_HOST_DEVICE __host__ __device__
#else
#define ROUTESTATS_HOST_DEVICE
#endif
