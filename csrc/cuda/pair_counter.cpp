#include "cuda/pair_counter.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/expert_view.hpp"

namespace routestats::cuda {
namespace {

constexpr std::uint64_t kReadCells = 1u << 19;
// Columns are numbered in 32 bits, and are a dimension of a grid in steps of 32.
constexpr std::uint64_t kMostColumns = 1u << 20;

}  // namespace

MethodTimes& method_times() {
  static MethodTimes times;
  return times;
}

PairCounter::PairCounter(std::uint32_t layers, std::uint32_t experts, std::uint32_t slots,
                         std::vector<LayerPair> pairs, cudaStream_t stream)
    : device_(current_device()),
      stream_(stream),
      layers_(layers),
      experts_(experts),
      slots_(slots),
      pairs_(std::move(pairs)),
      begun_(new_timing_event()),
      done_(new_timing_event()) {
  check_num_experts(experts);
  if (layers == 0 || slots == 0 || std::uint64_t{layers} * experts > kMostColumns) {
    throw std::invalid_argument(
        "layers, slots: expected at least 1, and layers * num_experts up to " +
        std::to_string(kMostColumns));
  }
  int value = 0;
  check(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_),
        "read the device's properties");
  shared_bytes_ = static_cast<std::uint64_t>(value);
  load_pair_kernels(shared_bytes_);
  check(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device_),
        "read the device's properties");
  multiprocessors_ = static_cast<unsigned>(value);

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
  std::set<std::pair<unsigned, unsigned>> gram;
  std::set<std::pair<unsigned, unsigned>> lists;
  for (std::size_t place = 0; place < pairs_.size(); ++place) {
    const auto [source, target] = pairs_[place];
    if (std::max(source, target) >= layers_) {
      throw std::invalid_argument("pairs: layer " + std::to_string(std::max(source, target)) +
                                  ", but there are " + std::to_string(layers_) + " layers");
    }
    places[std::size_t{source} * layers_ + target] = static_cast<std::uint32_t>(place);
    const auto for_parts_of = [&](unsigned layer, unsigned width, auto&& use) {
      for (unsigned part = layer * experts_ / width; part <= ((layer + 1) * experts_ - 1) / width;
           ++part) {
        use(part);
      }
    };
    for_parts_of(source, kColumnTile, [&](unsigned row) {
      for_parts_of(target, kColumnTile, [&](unsigned column) { gram.emplace(row, column); });
    });
    for_parts_of(target, kListRowColumns, [&](unsigned group) { lists.emplace(source, group); });
  }
  const auto upload = [&](auto& array, const auto& items) {
    using Item = typename std::remove_reference_t<decltype(items)>::value_type;
    array = stream_array<Item>(items.size(), stream_);
    check(cudaMemcpyAsync(array.get(), items.data(), items.size() * sizeof(Item),
                          cudaMemcpyHostToDevice, stream_),
          "copy the plan");
    check(cudaStreamSynchronize(stream_), "copy the plan");
  };
  const auto tiles = [](const std::set<std::pair<unsigned, unsigned>>& parts) {
    std::vector<uint2> list;
    for (const auto& [first, second] : parts) list.push_back(make_uint2(first, second));
    return list;
  };
  gram_tiles_ = gram.size();
  list_tiles_ = lists.size();
  upload(pair_list_, pairs_);
  upload(places_, places);
  upload(gram_tile_list_, tiles(gram));
  upload(list_tile_list_, tiles(lists));
}

void PairCounter::clear() {
  const OnDevice scope(device_);
  const std::uint64_t cells = std::uint64_t{experts_} * experts_;
  check(cudaMemsetAsync(expert_table_.get(), 0,
                        std::uint64_t{layers_} * experts_ * sizeof(std::uint64_t), stream_),
        "clear the tables");
  check(
      cudaMemsetAsync(pair_table_.get(), 0, pairs_.size() * cells * sizeof(std::uint64_t), stream_),
      "clear the tables");
}

DeviceMethod PairCounter::add(const IdView& all_slots, const IdNames& names,
                              std::optional<DeviceMethod> method) {
  if (all_slots.layers != layers_ || all_slots.slots < slots_) {
    throw std::invalid_argument("experts: expected the layers and slots of the counter");
  }
  if (all_slots.tokens == 0) return method.value_or(DeviceMethod::scatter);
  const OnDevice scope(device_);
  const bool sets = check_ids(all_slots, experts_, names, stream_);
  IdView view = all_slots;
  view.slots = slots_;
  const bool distinct = sets || view.slots == 1;
  const DeviceWork work{view.tokens, layers_,  pairs_.size(), experts_,
                        view.slots,  distinct, true,          shared_bytes_};
  if (method && !is_possible(*method, work)) {
    throw std::invalid_argument(
        "method: " + std::string(name_of(*method)) +
        (distinct ? " has no room in this device's shared memory"
                  : " cannot count an expert that a token names twice at one layer"));
  }
  if (method) {
    const std::uint64_t most = block_tokens(*method);
    for (std::uint64_t first = 0; first < view.tokens; first += most) {
      const IdView block = view.from(first, std::min(most, view.tokens - first));
      reserve(block.tokens, *method);
      count(block, *method);
    }
    return *method;
  }
  return add_by_trials(view, work);
}

void PairCounter::add_host(const IdView& all_slots, const IdNames& names,
                           std::optional<DeviceMethod> method) {
  const OnDevice scope(device_);
  pieces_.for_each(all_slots, stream_, [&](const IdView& part, std::uint64_t first) {
    add(part, {names.first_token + first, names.is_signed}, method);
  });
}

DeviceMethod PairCounter::add_by_trials(const IdView& view, const DeviceWork& work) {
  DeviceMethod taken = DeviceMethod::scatter;
  for (std::uint64_t first = 0; first < view.tokens;) {
    auto [method, trial, fastest] = method_times().choose(device_, work);
    const std::uint64_t left = view.tokens - first;
    const auto tokens_of = [&](DeviceMethod of) {
      const std::uint64_t most = block_tokens(of);
      return std::min(trial ? std::min(most, MethodTimes::kTrialTokens) : most, view.tokens);
    };
    if (trial && tokens_of(method) > left) {
      trial = false;
      method = fastest;
    }
    const IdView block = view.from(first, std::min(tokens_of(method), left));
    try {
      reserve(block.tokens, method);
    } catch (const DeviceError&) {
      if (method == DeviceMethod::scatter) throw;  // which takes no memory
      method_times().rule_out(device_, work, method);
      give_back_all_but(DeviceMethod::scatter);
      continue;
    }
    if (trial) {
      method_times().add(device_, work, method, block.tokens, timed(block, method));
      tried_ = true;
    } else {
      if (tried_) give_back_all_but(method);
      tried_ = false;
      count(block, method);
    }
    taken = method;
    first += block.tokens;
  }
  return taken;
}

double PairCounter::timed(const IdView& block, DeviceMethod method) {
  check(cudaEventRecord(begun_.get(), stream_), "time a method");
  count(block, method);
  check(cudaEventRecord(done_.get(), stream_), "time a method");
  check(cudaEventSynchronize(done_.get()), "time a method");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begun_.get(), done_.get()), "time a method");
  return milliseconds;
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
