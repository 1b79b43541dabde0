#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/device_atomics.cuh"
#include "cuda/launch.hpp"
#include "cuda/path_counter.hpp"

namespace routestats::cuda {
namespace {

constexpr std::uint64_t kBatchBytes = 128u << 20;
constexpr std::uint64_t kMostPaths = 0xfffffffe;  // a slot holds a path's number, plus one

__global__ void __launch_bounds__(kThreads)
    write_keys(const __grid_constant__ IdView view, const __grid_constant__ PathWindow window,
               std::uint32_t* batch) {
  const std::uint64_t items = view.tokens * window.ids();
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < items;
       i += stride) {
    const std::uint64_t row = i / window.ids();
    const auto place = static_cast<std::uint32_t>(i - row * window.ids());
    write_key_id(view, window, row, place / window.slots, place % window.slots,
                 batch + row * window.words());
  }
}

__global__ void __launch_bounds__(kThreads)
    count_batch(const __grid_constant__ PathTableView table, std::uint32_t rows) {
  const std::uint32_t row = blockIdx.x * kThreads + threadIdx.x;
  if (row < rows) count_key<DeviceAtomics>(table, table.stored + row, 1);
}

__global__ void __launch_bounds__(kThreads)
    keep_keys(const __grid_constant__ PathTableView table, std::uint32_t* stored) {
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t place = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x;
       place <= table.mask; place += stride) {
    keep_key<DeviceAtomics>(table, place, stored);
  }
}

// Moves every count of an old table to a larger one, by its key.
__global__ void __launch_bounds__(kThreads)
    move_counts(const std::uint64_t* slots, const std::uint64_t* counts, std::uint64_t num_slots,
                const __grid_constant__ PathTableView table) {
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t place = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; place < num_slots;
       place += stride) {
    if (slots[place] != 0) {
      count_key<DeviceAtomics>(table, key_of_slot(slots[place]), counts[place]);
    }
  }
}

// The counts in the order of the keys in the store.
__global__ void __launch_bounds__(kThreads)
    gather_counts(const __grid_constant__ PathTableView table, std::uint64_t* out) {
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t place = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x;
       place <= table.mask; place += stride) {
    if (table.slots[place] != 0) out[key_of_slot(table.slots[place])] = table.counts[place];
  }
}

unsigned blocks_of(std::uint64_t threads) {
  return static_cast<unsigned>(
      std::clamp<std::uint64_t>((threads + kThreads - 1) / kThreads, 1, 65'535));
}

}  // namespace

PathCounter::PathCounter(const PathWindow& window, std::uint64_t experts, bool sets,
                         std::uint64_t expected_paths, cudaStream_t stream)
    : device_(current_device()),
      stream_(stream),
      window_(window),
      experts_(experts),
      sets_(sets),
      length_(stream_array<std::uint32_t>(1, stream)) {
  const auto load_all = [](auto*... kernels) {
    (load_kernel(kernels, "load the kernels that count paths"), ...);
  };
  load_all(write_keys, count_batch, keep_keys, move_counts, gather_counts);
  load_check_kernels();
  check(cudaMemsetAsync(length_.get(), 0, sizeof(std::uint32_t), stream_), "make a table of paths");
  make_room(std::max<std::uint64_t>(expected_paths, 1024));
}

PathTableView PathCounter::table(std::uint32_t stored) const {
  return {table_slots_.get(), table_counts_.get(), slots_ - 1, store_.get(), batch_.get(), stored,
          window_.words()};
}

void PathCounter::make_room(std::uint64_t keys) {
  if (keys <= capacity_) return;
  if (keys > kMostPaths) {
    throw std::invalid_argument("paths: expected at most " + std::to_string(kMostPaths));
  }
  const std::uint64_t slots = std::bit_ceil(keys * 2);
  auto store = stream_array<std::uint32_t>(keys * window_.words(), stream_);
  auto new_slots = stream_array<std::uint64_t>(slots, stream_);
  auto new_counts = stream_array<std::uint64_t>(slots, stream_);
  for (auto* const words : {new_slots.get(), new_counts.get()}) {
    check(cudaMemsetAsync(words, 0, slots * sizeof(std::uint64_t), stream_), "grow a table");
  }
  if (stored_ != 0) {
    check(cudaMemcpyAsync(store.get(), store_.get(),
                          std::uint64_t{stored_} * window_.words() * sizeof(std::uint32_t),
                          cudaMemcpyDeviceToDevice, stream_),
          "grow a table");
    const PathTableView grown{new_slots.get(), new_counts.get(), slots - 1,      store.get(),
                              nullptr,         stored_,          window_.words()};
    launch("grow a table", stream_, {blocks_of(slots_)}, move_counts, table_slots_.get(),
           table_counts_.get(), slots_, grown);
  }
  // The stream frees the old arrays after the work that still reads them.
  store_ = std::move(store);
  table_slots_ = std::move(new_slots);
  table_counts_ = std::move(new_counts);
  capacity_ = keys;
  slots_ = slots;
}

void PathCounter::add(const IdView& view, const IdNames& names) {
  if (view.layers < window_.first_layer + window_.layers || view.slots < window_.slots) {
    throw std::invalid_argument("experts: expected the layers and slots of the paths");
  }
  const OnDevice scope(device_);
  const bool distinct = check_ids(view, experts_, names, stream_);
  if (sets_ && !distinct) {
    check_sets(view, window_.first_layer, window_.layers, names, stream_);
  }
  count(view);
}

void PathCounter::add_host(const IdView& view, const IdNames& names) {
  const OnDevice scope(device_);
  pieces_.for_each(view, stream_, [&](const IdView& part, std::uint64_t first) {
    add(part, {names.first_token + first, names.is_signed});
  });
}

void PathCounter::count(const IdView& view) {
  const std::uint64_t words = window_.words();
  const std::uint64_t most =
      std::clamp<std::uint64_t>(kBatchBytes / (words * sizeof(std::uint32_t)), 1, 1u << 20);
  batch_.reserve(std::min(most, view.tokens) * words, most * words, stream_);
  for (std::uint64_t first = 0; first < view.tokens; first += most) {
    const IdView part = view.from(first, std::min(most, view.tokens - first));
    const std::uint64_t needed = stored_ + part.tokens;
    if (needed > capacity_) make_room(std::max(needed, std::min(2 * capacity_, kMostPaths)));
    check(cudaMemsetAsync(batch_.get(), 0, part.tokens * words * sizeof(std::uint32_t), stream_),
          "count paths");
    launch("write keys", stream_, {blocks_of(part.tokens * window_.ids())}, write_keys, part,
           window_, batch_.get());
    const auto rows = static_cast<std::uint32_t>(part.tokens);
    launch("count paths", stream_, {(rows + kThreads - 1) / kThreads}, count_batch, table(stored_),
           rows);
    launch("keep paths", stream_, {blocks_of(slots_)}, keep_keys, table(stored_), length_.get());
    check(cudaMemcpyAsync(&stored_, length_.get(), sizeof stored_, cudaMemcpyDeviceToHost, stream_),
          "count paths");
    check(cudaStreamSynchronize(stream_), "count paths");
  }
}

void PathCounter::read(std::uint32_t* keys, std::uint64_t* counts) const {
  if (stored_ == 0) return;
  const OnDevice scope(device_);
  const auto gathered = stream_array<std::uint64_t>(stored_, stream_);
  launch("read paths", stream_, {blocks_of(slots_)}, gather_counts, table(stored_), gathered.get());
  check(cudaMemcpyAsync(counts, gathered.get(), stored_ * sizeof(std::uint64_t),
                        cudaMemcpyDeviceToHost, stream_),
        "read paths");
  check(cudaMemcpyAsync(keys, store_.get(),
                        std::uint64_t{stored_} * window_.words() * sizeof(std::uint32_t),
                        cudaMemcpyDeviceToHost, stream_),
        "read paths");
  check(cudaStreamSynchronize(stream_), "read paths");
}

}  // namespace routestats::cuda
