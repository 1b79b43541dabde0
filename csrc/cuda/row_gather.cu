#include <algorithm>

#include "cuda/device_atomics.cuh"
#include "cuda/launch.hpp"
#include "cuda/row_gather.hpp"

namespace routestats::cuda {
namespace {

// One thread per row and choice: a row's ids lie side by side on either end.
__global__ void __launch_bounds__(kThreads)
    gather_ids(const __grid_constant__ CaptureTarget target, const std::uint32_t* slots,
               std::uint64_t choices, char* gathered) {
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < choices;
       i += stride) {
    gather_id(target, slots, i, gathered);
  }
}

}  // namespace

RowGather::RowGather(cudaStream_t stream) : device_(current_device()), stream_(stream) {
  load_kernel(gather_ids, "load the kernel that gathers rows");
}

IdView RowGather::gather(const CaptureTarget& ring, const std::vector<std::uint32_t>& slots) {
  const RingExtents& extents = ring.extents;
  const std::uint64_t rows = slots.size();
  const std::uint64_t width = extents.row_width();
  const std::int64_t id_bytes = ring.id_bytes();
  const std::uint64_t row_bytes = width * ring.id_bytes();
  if (rows > extents.capacity) throw std::invalid_argument("slots: more than the ring has");
  const OnDevice scope(device_);
  std::uint32_t* const chosen = slots_.reserve(rows, extents.capacity, stream_);
  char* const ids = ids_.reserve(rows * row_bytes, extents.capacity * row_bytes, stream_);
  if (rows != 0) {
    check(cudaMemcpyAsync(chosen, slots.data(), rows * sizeof(std::uint32_t),
                          cudaMemcpyHostToDevice, stream_),
          "say which rows to gather");
    const std::uint64_t blocks = (rows * width + kThreads - 1) / kThreads;
    launch("gather rows", stream_, {static_cast<unsigned>(std::min<std::uint64_t>(blocks, 8192))},
           gather_ids, ring, chosen, rows * width, ids);
    check(cudaStreamSynchronize(stream_), "gather rows");
  }
  return {ids,
          ring.id_bytes(),
          rows,
          extents.layers,
          extents.top_k,
          static_cast<std::int64_t>(row_bytes),
          extents.top_k * id_bytes,
          id_bytes};
}

}  // namespace routestats::cuda
