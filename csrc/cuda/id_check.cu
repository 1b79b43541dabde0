#include <algorithm>
#include <string>

#include "device_atomics.cuh"
#include "id_check.hpp"
#include "memory.hpp"
#include "routestats/expert_view.hpp"

namespace routestats::cuda {
namespace {

__global__ void __launch_bounds__(kThreads)
    find_faults(const __grid_constant__ IdView view, std::uint64_t experts, IdFaults* faults) {
  const std::uint64_t choices = view.tokens * view.layers;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < choices;
       i += stride) {
    const std::uint64_t token = i / view.layers;
    check_choices<DeviceAtomics>(view, experts, token,
                                 static_cast<std::uint32_t>(i - token * view.layers), faults);
  }
}

std::string as_written(std::uint64_t id, std::uint32_t bytes, bool is_signed) {
  if (!is_signed) return std::to_string(id);
  const unsigned shift = 64 - 8 * bytes;
  return std::to_string(static_cast<std::int64_t>(id << shift) >> shift);
}

}  // namespace

bool check_ids(const IdView& view, std::uint64_t experts, std::uint64_t first_token, bool is_signed,
               cudaStream_t stream) {
  if (view.tokens == 0) return true;
  const auto on_device = device_array<IdFaults>(1);
  IdFaults faults{kNoBadId, 0};
  check(cudaMemcpyAsync(on_device.get(), &faults, sizeof faults, cudaMemcpyHostToDevice, stream),
        "check the ids");
  const std::uint64_t blocks = (view.tokens * view.layers + kThreads - 1) / kThreads;
  find_faults<<<static_cast<unsigned>(std::min<std::uint64_t>(blocks, 8192)), kThreads, 0,
                stream>>>(view, experts, on_device.get());
  check_launch("check the ids");
  check(cudaMemcpyAsync(&faults, on_device.get(), sizeof faults, cudaMemcpyDeviceToHost, stream),
        "check the ids");
  check(cudaStreamSynchronize(stream), "check the ids");
  if (faults.first_bad == kNoBadId) return faults.repeated == 0;

  const std::uint64_t slot = faults.first_bad % view.slots;
  const std::uint64_t layer = faults.first_bad / view.slots % view.layers;
  const std::uint64_t token = faults.first_bad / view.slots / view.layers;
  std::uint64_t id = 0;
  check(cudaMemcpy(&id,
                   view.data + static_cast<std::int64_t>(token) * view.token_stride +
                       static_cast<std::int64_t>(layer) * view.layer_stride +
                       static_cast<std::int64_t>(slot) * view.slot_stride,
                   view.item_bytes, cudaMemcpyDeviceToHost),
        "read an id");
  throw ExpertOutOfRange("experts[" + std::to_string(first_token + token) + ", " +
                         std::to_string(layer) + ", " + std::to_string(slot) +
                         "] = " + as_written(id, view.item_bytes, is_signed) +
                         ", but num_experts is " + std::to_string(experts));
}

}  // namespace routestats::cuda
