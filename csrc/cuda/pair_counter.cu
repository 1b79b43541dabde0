#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "base/expert_view.hpp"
#include "cuda/direct_kernels.cuh"
#include "cuda/launch.hpp"
#include "cuda/list_kernels.cuh"
#include "cuda/pair_counter.hpp"

namespace routestats::cuda {
namespace {

constexpr std::uint64_t kReadCells = 1u << 19;
// Columns are numbered in 32 bits.
constexpr std::uint64_t kMostColumns = 1u << 20;
constexpr std::uint64_t kRowBytes = 96u << 20;    // of the rows of a block that lists count
constexpr std::uint64_t kListBytes = 256u << 20;  // and of its lists

std::uint64_t ceil_of(std::uint64_t value, std::uint64_t step) { return (value + step - 1) / step; }

unsigned as_grid(std::uint64_t blocks) {
  return static_cast<unsigned>(std::clamp<std::uint64_t>(blocks, 1, 0x7fffffff));
}

int attribute_of(int device, cudaDeviceAttr attribute) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, device), "read the device's properties");
  return value;
}

// The first launch of a kernel loads it, which may wait for all work on the device.
void load_kernels(std::uint64_t shared_bytes) {
  const auto load_all = [](auto*... kernels) {
    (load_kernel(kernels, "load the kernels that count pairs"), ...);
  };
  load_all(add_loads, add_pairs, make_lists, set_rows, sum_lists);
  // All that a block can have, for the limit holds for all counters of the process.
  const auto reserve_shared = [&](auto* kernel) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "reserve shared memory");
  };
  reserve_shared(make_lists);
  reserve_shared(sum_lists);
  load_check_kernels();
}

}  // namespace

PairCounter::PairCounter(std::uint32_t layers, std::uint32_t experts, std::uint32_t slots,
                         std::vector<LayerPair> pairs, cudaStream_t stream)
    : device_(current_device()),
      stream_(stream),
      layers_(layers),
      experts_(experts),
      slots_(slots),
      pairs_(std::move(pairs)) {
  check_num_experts(experts);
  if (layers == 0 || slots == 0 || std::uint64_t{layers} * experts > kMostColumns) {
    throw std::invalid_argument(
        "layers, slots: expected at least 1, and layers * num_experts up to " +
        std::to_string(kMostColumns));
  }
  shared_bytes_ =
      static_cast<std::uint64_t>(attribute_of(device_, cudaDevAttrMaxSharedMemoryPerBlockOptin));
  multiprocessors_ = static_cast<unsigned>(attribute_of(device_, cudaDevAttrMultiProcessorCount));
  load_kernels(shared_bytes_);

  const std::uint64_t cells = std::uint64_t{experts} * experts;
  expert_table_ = stream_array<std::uint64_t>(std::uint64_t{layers} * experts, stream);
  pair_table_ = stream_array<std::uint64_t>(pairs_.size() * cells, stream);
  read_ = pinned_array<std::uint64_t>(kReadCells);
  upload_plan();
  clear();
  check(cudaStreamSynchronize(stream_), "make the tables");
}

void PairCounter::upload_plan() {
  std::vector<std::uint32_t> places(std::size_t{layers_} * layers_, kNotCounted);
  std::set<std::pair<unsigned, unsigned>> tiles;
  for (std::size_t place = 0; place < pairs_.size(); ++place) {
    const auto [source, target] = pairs_[place];
    if (std::max(source, target) >= layers_) {
      throw std::invalid_argument("pairs: layer " + std::to_string(std::max(source, target)) +
                                  ", but there are " + std::to_string(layers_) + " layers");
    }
    places[std::size_t{source} * layers_ + target] = static_cast<std::uint32_t>(place);
    const unsigned last = ((target + 1) * experts_ - 1) / kListRowColumns;
    for (unsigned group = target * experts_ / kListRowColumns; group <= last; ++group) {
      tiles.emplace(source, group);
    }
  }
  std::vector<uint2> tile_list;
  for (const auto& [source, group] : tiles) tile_list.push_back(make_uint2(source, group));
  num_tiles_ = tile_list.size();
  const auto upload = [&](auto& array, const auto& items) {
    using Item = typename std::remove_reference_t<decltype(items)>::value_type;
    array = stream_array<Item>(items.size(), stream_);
    check(cudaMemcpyAsync(array.get(), items.data(), items.size() * sizeof(Item),
                          cudaMemcpyHostToDevice, stream_),
          "copy the plan");
    check(cudaStreamSynchronize(stream_), "copy the plan");
  };
  upload(pair_list_, pairs_);
  upload(places_, places);
  upload(tiles_, tile_list);
}

void PairCounter::clear() {
  const OnDevice scope(device_);
  const auto zero = [&](std::uint64_t* table, std::uint64_t cells) {
    check(cudaMemsetAsync(table, 0, cells * sizeof(std::uint64_t), stream_), "clear the tables");
  };
  zero(expert_table_.get(), std::uint64_t{layers_} * experts_);
  zero(pair_table_.get(), pairs_.size() * experts_ * experts_);
}

DeviceMethod PairCounter::add(const IdView& all_slots, const IdNames& names,
                              std::optional<DeviceMethod> method) {
  if (all_slots.layers != layers_ || all_slots.slots < slots_) {
    throw std::invalid_argument("experts: expected the layers and slots of the counter");
  }
  if (all_slots.tokens == 0) return method.value_or(DeviceMethod::direct);
  const OnDevice scope(device_);
  const bool sets = check_ids(all_slots, experts_, names, stream_);
  IdView view = all_slots;
  view.slots = slots_;
  const bool distinct = sets || view.slots == 1;
  const DeviceWork work{view.tokens, experts_, view.slots, distinct, shared_bytes_};
  if (method && !is_possible(*method, work)) {
    throw std::invalid_argument(
        "method: " + std::string(name_of(*method)) +
        (distinct ? " has no room in this device's shared memory"
                  : " cannot count an expert that a token names twice at one layer"));
  }
  DeviceMethod taken = method.value_or(choose_method(work));
  if (taken == DeviceMethod::lists) {
    try {
      reserve_lists(view.tokens);
    } catch (const DeviceError&) {
      if (method) throw;
      taken = DeviceMethod::direct;  // which takes no memory
    }
  }
  if (taken == DeviceMethod::lists) {
    add_lists(view);
  } else {
    add_direct(view);
  }
  return taken;
}

void PairCounter::add_host(const IdView& all_slots, const IdNames& names,
                           std::optional<DeviceMethod> method) {
  const OnDevice scope(device_);
  pieces_.for_each(all_slots, stream_, [&](const IdView& part, std::uint64_t first) {
    add(part, {names.first_token + first, names.is_signed}, method);
  });
}

void PairCounter::add_direct(const IdView& view) {
  // The threads stride over the items.
  const auto grid = [&](std::uint64_t items) {
    return dim3(as_grid(std::min<std::uint64_t>(ceil_of(items, kThreads), multiprocessors_ * 16u)));
  };
  launch("count experts", stream_, {grid(view.tokens * layers_)}, add_loads, view, experts_,
         expert_table_.get());
  if (pairs_.empty()) return;
  const auto num_pairs = static_cast<std::uint32_t>(pairs_.size());
  launch("count pairs", stream_, {grid(view.tokens * num_pairs)}, add_pairs, view, experts_,
         pair_list_.get(), num_pairs, pair_table_.get());
}

void PairCounter::reserve_lists(std::uint64_t tokens) {
  const ListLayout layout = lists();
  const std::uint64_t most = layout.chunk_tokens(kRowBytes, kListBytes);
  const std::uint64_t count = std::min(tokens, most);
  const std::uint64_t blocks = ceil_of(count, kListBlockTokens);
  const std::uint64_t most_blocks = most / kListBlockTokens;
  try {
    rows_.reserve(layout.row_word(layout.groups(), count, 0, 0),
                  layout.row_word(layout.groups(), most, 0, 0), stream_);
    entries_.reserve(layout.entries(blocks, 0), layout.entries(most_blocks, 0), stream_);
    begins_.reserve(layout.begins(blocks, 0), layout.begins(most_blocks, 0), stream_);
  } catch (const DeviceError&) {
    rows_.give_back();
    entries_.give_back();
    begins_.give_back();
    throw;
  }
}

void PairCounter::add_lists(const IdView& view) {
  const std::uint64_t most = lists().chunk_tokens(kRowBytes, kListBytes);
  for (std::uint64_t first = 0; first < view.tokens; first += most) {
    add_list_block(view.from(first, std::min(most, view.tokens - first)));
  }
}

void PairCounter::add_list_block(const IdView& block) {
  const ListLayout layout = lists();
  const std::uint64_t blocks = ceil_of(block.tokens, kListBlockTokens);
  launch("make lists", stream_, {dim3(as_grid(blocks), layers_), kThreads, layout.making_bytes()},
         make_lists, block, layout, entries_.get(), begins_.get(), expert_table_.get());
  if (num_tiles_ == 0) return;
  const std::uint64_t words = block.tokens * kListRowWords;
  launch("set rows", stream_, {dim3(as_grid(ceil_of(words, kThreads)), as_grid(layout.groups()))},
         set_rows, block, layout, rows_.get());
  // Enough blocks of threads to fill the device, and no more: each adds its sums to the table.
  const std::uint64_t slabs = ceil_of(experts_, kListSources);
  const std::uint64_t wanted =
      std::clamp<std::uint64_t>(ceil_of(multiprocessors_ * 4u, num_tiles_ * slabs), 1, blocks);
  const std::uint64_t shares = std::max(wanted, ceil_of(blocks, kListShareBlocks));
  const auto share = static_cast<std::uint32_t>(ceil_of(blocks, shares));
  const dim3 grid(as_grid(num_tiles_), as_grid(ceil_of(blocks, share)), as_grid(slabs));
  launch("count pairs", stream_, {grid, kListThreads, ListLayout::summing_bytes()}, sum_lists,
         rows_.get(), block.tokens, entries_.get(), begins_.get(), layout, tiles_.get(), share,
         ListPlan{places_.get(), layers_, experts_}, pair_table_.get());
}

void PairCounter::read(const CountTables& tables) const {
  const OnDevice scope(device_);
  const auto add = [&](const std::uint64_t* device, std::uint64_t cells, std::uint64_t* host) {
    for (std::uint64_t first = 0; first < cells; first += kReadCells) {
      const std::uint64_t piece = std::min(kReadCells, cells - first);
      check(cudaMemcpyAsync(read_.get(), device + first, piece * sizeof(std::uint64_t),
                            cudaMemcpyDeviceToHost, stream_),
            "read the counts");
      check(cudaStreamSynchronize(stream_), "read the counts");
      for (std::uint64_t i = 0; i < piece; ++i) host[first + i] += read_[i];
    }
  };
  add(expert_table_.get(), std::uint64_t{layers_} * experts_, tables.expert);
  add(pair_table_.get(), pairs_.size() * experts_ * experts_, tables.pairs);
}

}  // namespace routestats::cuda
