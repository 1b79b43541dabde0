#include <algorithm>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "launch.hpp"
#include "list_kernels.cuh"
#include "pair_counter.hpp"
#include "pair_kernels.cuh"
#include "routestats/direct_tiles.hpp"
#include "routestats/expert_view.hpp"

namespace routestats::cuda {
namespace {

constexpr std::uint64_t kPackedBytes = 256u << 20;  // of a block that is counted by increments
constexpr std::uint64_t kBitBytes = 96u << 20;      // of one that is counted by bits, or its rows
constexpr std::uint64_t kListBytes = 256u << 20;    // and its lists
constexpr std::uint64_t kHistogramTokens = 16'384;  // per block of threads
constexpr std::uint32_t kGramWords =
    256;  // at least, per block of threads: adding up its cells costs as much
constexpr std::uint64_t kReadCells = 1u << 19;
// Columns are numbered in 32 bits, and are a dimension of a grid in steps of 32.
constexpr std::uint64_t kMostColumns = 1u << 20;

std::uint64_t ceil_of(std::uint64_t value, std::uint64_t step) { return (value + step - 1) / step; }

unsigned as_grid(std::uint64_t blocks) {
  return static_cast<unsigned>(std::clamp<std::uint64_t>(blocks, 1, 0x7fffffff));
}

using Histogram = void (*)(const std::uint16_t*, std::uint64_t, std::uint32_t, std::uint32_t,
                           const LayerPair*, std::uint64_t, std::uint32_t, std::uint64_t*);

Histogram histogram_of(std::uint32_t slots) {
  switch (slots) {
    case 1:
      return histogram<1>;
    case 2:
      return histogram<2>;
    case 4:
      return histogram<4>;
    case 6:
      return histogram<6>;
    case 8:
      return histogram<8>;
    default:
      return histogram<0>;
  }
}

// A kernel's first launch loads it, which may wait for whatever runs on the device.
void load_pair_kernels() {
  const auto load_all = [](auto*... kernels) {
    (load_kernel(kernels, "load the kernels that count pairs"), ...);
  };
  load_all(pack, load, scatter, set_bits, load_of_bits, gram_tensor, gram_popcount, make_lists,
           set_rows, sum_lists);
  for (const std::uint32_t slots : {1u, 2u, 4u, 6u, 8u, 0u}) load_all(histogram_of(slots));
  load_check_kernels();
}

template <class Kernel>
void reserve_shared(Kernel* kernel, std::uint64_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "reserve shared memory");
}

std::uint32_t padded_columns(std::uint32_t columns) {
  return static_cast<std::uint32_t>(ceil_of(columns, kColumnTile) * kColumnTile);
}

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
  load_pair_kernels();
  if (layers == 0 || slots == 0 || std::uint64_t{layers} * experts > kMostColumns) {
    throw std::invalid_argument(
        "layers, slots: expected at least 1, and layers * num_experts up to " +
        std::to_string(kMostColumns));
  }
  int value = 0;
  check(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_),
        "read the device's properties");
  shared_bytes_ = static_cast<std::uint64_t>(value);
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
  MethodTimes::Choice choice{method.value_or(DeviceMethod::scatter), false};
  for (std::uint64_t first = 0; first < view.tokens;) {
    if (!method) choice = method_times().choose(device_, work);
    const std::uint64_t whole = std::min(
        {block_tokens(choice.method), view.tokens,
         choice.trial ? MethodTimes::kTrialTokens : std::numeric_limits<std::uint64_t>::max()});
    const IdView block = view.from(first, std::min(whole, view.tokens - first));
    if (choice.trial && block.tokens == whole) {
      method_times().add(device_, work, choice.method, whole, timed(block, choice.method));
    } else {
      count(block, choice.method);
    }
    first += block.tokens;
  }
  return choice.method;
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

void PairCounter::add_host(const IdView& all_slots, const IdNames& names,
                           std::optional<DeviceMethod> method) {
  const OnDevice scope(device_);
  pieces_.for_each(all_slots, stream_, [&](const IdView& part, std::uint64_t first) {
    add(part, {names.first_token + first, names.is_signed}, method);
  });
}

// Blocks of a kernel whose threads stride over so many items.
std::uint64_t PairCounter::striding(std::uint64_t items) const {
  return std::min<std::uint64_t>(ceil_of(items, kThreads), multiprocessors_ * 16u);
}

std::uint64_t PairCounter::block_tokens(DeviceMethod method) const {
  constexpr std::uint64_t kStep = 8192;
  switch (method) {
    case DeviceMethod::popcount:
    case DeviceMethod::tensor:
      return std::max(kBitBytes * 8 / padded_columns(columns()) / kStep * kStep, kStep);
    case DeviceMethod::lists:
      return lists().chunk_tokens(kBitBytes, kListBytes);
    case DeviceMethod::scatter:
    case DeviceMethod::histogram:
      break;
  }
  return std::max<std::uint64_t>(
      kPackedBytes / (std::uint64_t{layers_} * slots_ * sizeof(std::uint16_t)), 1024);
}

void PairCounter::count(const IdView& block, DeviceMethod method) {
  switch (method) {
    case DeviceMethod::scatter:
      return count_by_increments(block, false);
    case DeviceMethod::histogram:
      return count_by_increments(block, true);
    case DeviceMethod::popcount:
      return count_by_bits(block, false);
    case DeviceMethod::tensor:
      return count_by_bits(block, true);
    case DeviceMethod::lists:
      return count_by_lists(block);
  }
}

void PairCounter::load_experts(const IdView& block) {
  const std::uint64_t bytes = std::uint64_t{experts_} * sizeof(std::uint32_t);
  const bool narrow = bytes <= 48u << 10;
  const std::uint64_t tokens = 8192;
  const dim3 grid(layers_, as_grid(ceil_of(block.tokens, tokens)));
  launch("count experts", stream_, {grid, kThreads, narrow ? bytes : 0}, load, block, experts_,
         narrow, tokens, expert_table_.get());
}

void PairCounter::count_by_increments(const IdView& block, bool shared) {
  load_experts(block);
  if (pairs_.empty()) return;
  const auto num_pairs = static_cast<std::uint32_t>(pairs_.size());
  if (!shared) {
    launch("count pairs", stream_, {as_grid(striding(block.tokens * num_pairs))}, scatter, block,
           experts_, pair_list_.get(), num_pairs, pair_table_.get());
    return;
  }
  const std::uint64_t row = std::uint64_t{layers_} * slots_;
  packed_.reserve(block.tokens * row, block_tokens(DeviceMethod::histogram) * row, stream_);
  launch("pack ids", stream_, {as_grid(striding(block.tokens * layers_))}, pack, block,
         packed_.get());
  const std::uint32_t rows = tile_rows(experts_, shared_bytes_);
  const Histogram kernel = histogram_of(block.slots);
  const std::uint64_t bytes = std::uint64_t{rows} * experts_ * sizeof(std::uint32_t);
  reserve_shared(kernel, bytes);
  const std::uint64_t share = std::min<std::uint64_t>(kHistogramTokens, tile_capacity(slots_));
  const dim3 grid(num_pairs, as_grid(ceil_of(block.tokens, share)),
                  as_grid(ceil_of(experts_, rows)));
  launch("count pairs", stream_, {grid, kHistogramThreads, bytes}, kernel, packed_.get(),
         block.tokens, block.slots, experts_, pair_list_.get(), share, rows, pair_table_.get());
}

void PairCounter::count_by_bits(const IdView& block, bool tensor) {
  const std::uint32_t columns_and_padding = padded_columns(columns());
  // Both products take words in steps of 16; bits past the last token are zero.
  const auto words = static_cast<std::uint32_t>(ceil_of(ceil_of(block.tokens, 32), 16) * 16);
  bits_.reserve(std::uint64_t{words} * columns_and_padding,
                block_tokens(DeviceMethod::tensor) / 32 * columns_and_padding, stream_);
  const std::uint32_t words_per_block = kWordsPerWarp * (kThreads / 32);
  launch("set bits", stream_,
         {dim3(as_grid(ceil_of(words, words_per_block)), columns_and_padding / 32)}, set_bits,
         block, experts_, words, bits_.get());
  launch("count experts", stream_, {as_grid(ceil_of(columns(), kThreads / 32))}, load_of_bits,
         bits_.get(), columns(), words, expert_table_.get());
  if (gram_tiles_ == 0) return;
  const GramPlan plan{places_.get(), layers_, experts_};
  // Enough blocks to fill the device, and no more: each adds all its cells to the table.
  const std::uint64_t share = ceil_of(words * gram_tiles_, multiprocessors_ * 4u);
  const auto gram_words =
      static_cast<std::uint32_t>(std::max<std::uint64_t>(ceil_of(share, 16) * 16, kGramWords));
  const dim3 grid(as_grid(gram_tiles_), as_grid(ceil_of(words, gram_words)));
  if (tensor) {
    launch("count pairs", stream_, {grid, 128}, gram_tensor, bits_.get(), words, gram_words,
           gram_tile_list_.get(), plan, pair_table_.get());
  } else {
    launch("count pairs", stream_, {grid, 256}, gram_popcount, bits_.get(), words, gram_words,
           gram_tile_list_.get(), plan, pair_table_.get());
  }
}

void PairCounter::count_by_lists(const IdView& block) {
  const ListLayout layout = lists();
  const std::uint64_t blocks = ceil_of(block.tokens, kListBlockTokens);
  const std::uint64_t most = block_tokens(DeviceMethod::lists);
  const std::uint64_t most_blocks = most / kListBlockTokens;
  entries_.reserve(layout.entries(blocks, 0), layout.entries(most_blocks, 0), stream_);
  begins_.reserve(layout.begins(blocks, 0), layout.begins(most_blocks, 0), stream_);
  rows_.reserve(layout.row_word(layout.groups(), block.tokens, 0, 0),
                layout.row_word(layout.groups(), most, 0, 0), stream_);
  const std::uint64_t making = layout.making_bytes();
  reserve_shared(make_lists, making);
  launch("make lists", stream_, {dim3(as_grid(blocks), layers_), kThreads, making}, make_lists,
         block, layout, entries_.get(), begins_.get(), expert_table_.get());
  if (list_tiles_ == 0) return;
  const std::uint64_t words = block.tokens * kListRowWords;
  launch("set rows", stream_, {dim3(as_grid(ceil_of(words, kThreads)), as_grid(layout.groups()))},
         set_rows, block, layout, rows_.get());
  // Enough blocks of threads to fill the device, and no more: each adds all its cells to the table.
  const std::uint64_t slabs = ceil_of(experts_, kListSources);
  const std::uint64_t wanted =
      std::clamp<std::uint64_t>(ceil_of(multiprocessors_ * 4u, list_tiles_ * slabs), 1, blocks);
  const std::uint64_t shares = std::max(wanted, ceil_of(blocks, kListShareBlocks));
  const auto share = static_cast<std::uint32_t>(ceil_of(blocks, shares));
  reserve_shared(sum_lists, ListLayout::summing_bytes());
  const dim3 grid(as_grid(list_tiles_), as_grid(ceil_of(blocks, share)), as_grid(slabs));
  launch("count pairs", stream_, {grid, kListThreads, ListLayout::summing_bytes()}, sum_lists,
         rows_.get(), block.tokens, entries_.get(), begins_.get(), layout, list_tile_list_.get(),
         share, GramPlan{places_.get(), layers_, experts_}, pair_table_.get());
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
