#include <algorithm>
#include <string>
#include <vector>

#include "base/expert_view.hpp"
#include "cuda/device_atomics.cuh"
#include "cuda/id_check.hpp"
#include "cuda/launch.hpp"
#include "cuda/memory.hpp"

namespace routestats::cuda {
namespace {

__global__ void __launch_bounds__(kThreads)
    find_faults(const __grid_constant__ IdView view, std::uint64_t limit, IdFaults* faults) {
  const std::uint64_t choices = view.tokens * view.layers;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < choices;
       i += stride) {
    const std::uint64_t token = i / view.layers;
    check_choices<DeviceAtomics>(view, limit, token,
                                 static_cast<std::uint32_t>(i - token * view.layers), faults);
  }
}

IdFaults faults_of(const IdView& view, std::uint64_t limit, cudaStream_t stream) {
  IdFaults faults;
  if (view.tokens == 0) return faults;
  const auto on_device = stream_array<IdFaults>(1, stream);
  check(cudaMemcpyAsync(on_device.get(), &faults, sizeof faults, cudaMemcpyHostToDevice, stream),
        "check the ids");
  const std::uint64_t blocks = (view.tokens * view.layers + kThreads - 1) / kThreads;
  launch("check the ids", stream, {static_cast<unsigned>(std::min<std::uint64_t>(blocks, 8192))},
         find_faults, view, limit, on_device.get());
  check(cudaMemcpyAsync(&faults, on_device.get(), sizeof faults, cudaMemcpyDeviceToHost, stream),
        "check the ids");
  check(cudaStreamSynchronize(stream), "check the ids");
  return faults;
}

// A place of IdFaults.
struct Place {
  std::uint64_t token;
  std::uint32_t layer;
  std::uint32_t slot;

  Place(const IdView& view, std::uint64_t key)
      : token(key / view.slots / view.layers),
        layer(static_cast<std::uint32_t>(key / view.slots % view.layers)),
        slot(static_cast<std::uint32_t>(key % view.slots)) {}
};

std::uint64_t fetch_id(const IdView& view, std::uint64_t token, std::uint32_t layer,
                       std::uint32_t slot, cudaStream_t stream) {
  std::uint64_t id = 0;
  check(cudaMemcpyAsync(&id,
                        view.data + static_cast<std::int64_t>(token) * view.token_stride +
                            static_cast<std::int64_t>(layer) * view.layer_stride +
                            static_cast<std::int64_t>(slot) * view.slot_stride,
                        view.item_bytes, cudaMemcpyDeviceToHost, stream),
        "read an id");
  check(cudaStreamSynchronize(stream), "read an id");
  return id;
}

std::string as_written(std::uint64_t id, std::uint32_t bytes, bool is_signed) {
  if (!is_signed) return std::to_string(id);
  const unsigned shift = 64 - 8 * bytes;
  return std::to_string(static_cast<std::int64_t>(id << shift) >> shift);
}

std::string name_of(std::uint64_t token, std::uint32_t layer, std::uint32_t slot) {
  return "experts[" + std::to_string(token) + ", " + std::to_string(layer) + ", " +
         std::to_string(slot) + "] = ";
}

}  // namespace

void load_check_kernels() { load_kernel(find_faults, "load the kernel that checks ids"); }

bool check_ids(const IdView& view, std::uint64_t experts, const IdNames& names,
               cudaStream_t stream) {
  const IdFaults faults =
      faults_of(view, id_limit(experts, view.item_bytes, names.is_signed), stream);
  if (faults.first_bad == kNowhere) return faults.first_repeated == kNowhere;
  const Place place(view, faults.first_bad);
  const std::uint64_t id = fetch_id(view, place.token, place.layer, place.slot, stream);
  throw ExpertOutOfRange(name_of(names.first_token + place.token, place.layer, place.slot) +
                         as_written(id, view.item_bytes, names.is_signed) +
                         ", but num_experts is " + std::to_string(experts));
}

void check_sets(const IdView& view, std::uint32_t first_layer, std::uint32_t layers,
                const IdNames& names, cudaStream_t stream) {
  const IdView window = view.layers_from(first_layer, layers);
  const IdFaults faults = faults_of(window, kNowhere, stream);
  if (faults.first_repeated == kNowhere) return;
  const Place place(window, faults.first_repeated);
  const std::uint64_t id = fetch_id(window, place.token, place.layer, place.slot, stream);
  std::uint32_t earlier = 0;
  while (fetch_id(window, place.token, place.layer, earlier, stream) != id) ++earlier;
  throw ExpertRepeated(
      name_of(names.first_token + place.token, first_layer + place.layer, place.slot) +
      std::to_string(id) + ", which is in slot " + std::to_string(earlier) +
      " already; a set needs distinct experts");
}

}  // namespace routestats::cuda
