#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "id_check.hpp"
#include "pair_counter.hpp"
#include "pair_kernels.cuh"

namespace routestats::cuda {
namespace {

constexpr std::uint64_t kPackedBytes = 256u << 20;  // of a block that is counted by increments
constexpr std::uint64_t kBitBytes = 96u << 20;      // of one that is counted by bits
constexpr std::uint64_t kStagingBytes = 256u << 20;
constexpr std::uint64_t kHistogramTokens = 16'384;  // per block of threads
constexpr std::uint32_t kGramWords =
    256;  // at least, per block of threads: adding up its cells costs as much
constexpr std::uint64_t kReadCells = 4u << 20;

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

std::uint32_t padded_columns(std::uint32_t columns) {
  return static_cast<std::uint32_t>(ceil_of(columns, kColumnTile) * kColumnTile);
}

}  // namespace

PairCounter::PairCounter(std::uint32_t layers, std::uint32_t experts, std::uint32_t slots,
                         std::vector<LayerPair> pairs)
    : layers_(layers), experts_(experts), slots_(slots), pairs_(std::move(pairs)) {
  int device = 0;
  int value = 0;
  check(cudaGetDevice(&device), "find the device");
  check(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "read the device's properties");
  shared_bytes_ = static_cast<std::uint64_t>(value);
  check(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device),
        "read the device's properties");
  multiprocessors_ = static_cast<unsigned>(value);

  const std::uint64_t cells = std::uint64_t{experts} * experts;
  expert_table_ = device_array<std::uint64_t>(std::uint64_t{layers} * experts);
  pair_table_ = device_array<std::uint64_t>(pairs_.size() * cells);

  std::vector<std::uint32_t> places(std::size_t{layers} * layers, kNotCounted);
  std::set<std::pair<unsigned, unsigned>> tiles;
  for (std::size_t place = 0; place < pairs_.size(); ++place) {
    const auto [source, target] = pairs_[place];
    if (std::max(source, target) >= layers) {
      throw std::invalid_argument("pairs: layer " + std::to_string(std::max(source, target)) +
                                  ", but there are " + std::to_string(layers) + " layers");
    }
    places[std::size_t{source} * layers + target] = static_cast<std::uint32_t>(place);
    for (unsigned row = source * experts / kColumnTile;
         row <= ((source + 1) * experts - 1) / kColumnTile; ++row) {
      for (unsigned column = target * experts / kColumnTile;
           column <= ((target + 1) * experts - 1) / kColumnTile; ++column) {
        tiles.emplace(row, column);
      }
    }
  }
  for (const auto& [row, column] : tiles) gram_tiles_.push_back(make_uint2(row, column));
  const auto upload = [](auto& array, const auto& items) {
    using Item = typename std::remove_reference_t<decltype(items)>::value_type;
    array = device_array<Item>(items.size());
    check(
        cudaMemcpy(array.get(), items.data(), items.size() * sizeof(Item), cudaMemcpyHostToDevice),
        "copy the plan");
  };
  upload(pair_list_, pairs_);
  upload(places_, places);
  upload(gram_tile_list_, gram_tiles_);
  clear(nullptr);
  check(cudaDeviceSynchronize(), "make the tables");
}

void PairCounter::clear(cudaStream_t stream) {
  const std::uint64_t cells = std::uint64_t{experts_} * experts_;
  check(cudaMemsetAsync(expert_table_.get(), 0,
                        std::uint64_t{layers_} * experts_ * sizeof(std::uint64_t), stream),
        "clear the tables");
  check(
      cudaMemsetAsync(pair_table_.get(), 0, pairs_.size() * cells * sizeof(std::uint64_t), stream),
      "clear the tables");
}

DeviceMethod PairCounter::add(const IdView& all_slots, std::uint64_t first_token, bool is_signed,
                              std::optional<DeviceMethod> method, cudaStream_t stream) {
  if (all_slots.tokens == 0) return method.value_or(DeviceMethod::scatter);
  const bool sets = check_ids(all_slots, experts_, first_token, is_signed, stream);
  IdView view = all_slots;
  view.slots = std::min(view.slots, slots_);
  const bool distinct = sets || view.slots == 1;
  const DeviceWork work{view.tokens, experts_, view.slots, distinct, true, shared_bytes_};
  const DeviceMethod chosen = method.value_or(choose_device_method(work));
  const bool by_bits = chosen == DeviceMethod::popcount || chosen == DeviceMethod::tensor;
  if (by_bits && !distinct) {
    throw std::invalid_argument("method: bits cannot count an expert named twice by a token");
  }
  const std::uint64_t block = block_tokens(chosen);
  for (std::uint64_t first = 0; first < view.tokens; first += block) {
    count(view.from(first, std::min(block, view.tokens - first)), chosen, stream);
  }
  return chosen;
}

void PairCounter::add_host(const IdView& all_slots, std::uint64_t first_token, bool is_signed,
                           cudaStream_t stream) {
  const std::uint64_t row_bytes =
      std::uint64_t{all_slots.layers} * all_slots.slots * all_slots.item_bytes;
  const std::uint64_t piece = std::max<std::uint64_t>(1, kStagingBytes / row_bytes);
  const std::uint64_t most = std::min(piece, all_slots.tokens);
  staging_ = device_array<char>(most * row_bytes);
  for (std::uint64_t first = 0; first < all_slots.tokens; first += piece) {
    IdView part = all_slots.from(first, std::min(piece, all_slots.tokens - first));
    check(cudaMemcpyAsync(staging_.get(), part.data, part.tokens * row_bytes,
                          cudaMemcpyHostToDevice, stream),
          "copy ids to the device");
    part.data = staging_.get();
    add(part, first_token + first, is_signed, std::nullopt, stream);
  }
  check(cudaStreamSynchronize(stream), "count");
  staging_.reset();
}

void PairCounter::add_ring(const void* ids, std::uint32_t id_bytes, const RingExtents& extents,
                           std::uint64_t first_slot, std::uint64_t rows, cudaStream_t stream) {
  const auto row_bytes = static_cast<std::int64_t>(extents.row_width() * id_bytes);
  const auto count_piece = [&](std::uint64_t slot, std::uint64_t piece) {
    if (piece == 0) return;
    const IdView view{static_cast<const char*>(ids) + static_cast<std::int64_t>(slot) * row_bytes,
                      id_bytes,
                      piece,
                      extents.layers,
                      std::min(extents.top_k, slots_),
                      row_bytes,
                      static_cast<std::int64_t>(extents.top_k * id_bytes),
                      static_cast<std::int64_t>(id_bytes)};
    // A step is short, and a router may not be trusted never to repeat itself.
    count(view, DeviceMethod::scatter, stream);
  };
  const std::uint64_t until_wrap = extents.contiguous(first_slot, rows);
  count_piece(first_slot, until_wrap);
  count_piece(0, rows - until_wrap);
}

std::uint64_t PairCounter::block_tokens(DeviceMethod method) const {
  if (method == DeviceMethod::popcount || method == DeviceMethod::tensor) {
    const std::uint64_t tokens = kBitBytes * 8 / padded_columns(columns());
    return std::max<std::uint64_t>(tokens / 8192 * 8192, 8192);
  }
  return std::max<std::uint64_t>(
      kPackedBytes / (std::uint64_t{layers_} * slots_ * sizeof(std::uint16_t)), 1024);
}

void PairCounter::count(const IdView& block, DeviceMethod method, cudaStream_t stream) {
  switch (method) {
    case DeviceMethod::scatter:
      return count_by_increments(block, false, stream);
    case DeviceMethod::histogram:
      return count_by_increments(block, true, stream);
    case DeviceMethod::popcount:
      return count_by_bits(block, false, stream);
    case DeviceMethod::tensor:
      return count_by_bits(block, true, stream);
  }
}

void PairCounter::load_experts(const IdView& block, cudaStream_t stream) {
  const std::uint64_t bytes = std::uint64_t{experts_} * sizeof(std::uint32_t);
  const bool narrow = bytes <= 48u << 10;
  const std::uint64_t tokens = 8192;
  const dim3 grid(layers_, as_grid(ceil_of(block.tokens, tokens)));
  load<<<grid, kThreads, narrow ? bytes : 0, stream>>>(block, experts_, narrow, tokens,
                                                       expert_table_.get());
  check_launch("count experts");
}

void PairCounter::count_by_increments(const IdView& block, bool shared, cudaStream_t stream) {
  load_experts(block, stream);
  if (pairs_.empty()) return;
  const auto num_pairs = static_cast<std::uint32_t>(pairs_.size());
  if (!shared) {
    scatter<<<as_grid(std::min<std::uint64_t>(ceil_of(block.tokens * num_pairs, kThreads),
                                              multiprocessors_ * 16u)),
              kThreads, 0, stream>>>(block, experts_, pair_list_.get(), num_pairs,
                                     pair_table_.get());
    return check_launch("count pairs");
  }
  if (!packed_) {
    packed_ = device_array<std::uint16_t>(block_tokens(DeviceMethod::histogram) * layers_ * slots_);
  }
  pack<<<as_grid(std::min<std::uint64_t>(ceil_of(block.tokens * layers_, kThreads),
                                         multiprocessors_ * 16u)),
         kThreads, 0, stream>>>(block, packed_.get());
  check_launch("pack ids");
  const std::uint32_t rows = tile_rows(experts_, shared_bytes_);
  if (rows == 0) throw std::invalid_argument("method: not one row of a tile fits shared memory");
  const Histogram kernel = histogram_of(block.slots);
  const std::uint64_t bytes = std::uint64_t{rows} * experts_ * sizeof(std::uint32_t);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "reserve shared memory");
  const dim3 grid(num_pairs, as_grid(ceil_of(block.tokens, kHistogramTokens)),
                  as_grid(ceil_of(experts_, rows)));
  kernel<<<grid, kHistogramThreads, bytes, stream>>>(packed_.get(), block.tokens, block.slots,
                                                     experts_, pair_list_.get(), kHistogramTokens,
                                                     rows, pair_table_.get());
  check_launch("count pairs");
}

void PairCounter::count_by_bits(const IdView& block, bool tensor, cudaStream_t stream) {
  const std::uint32_t columns_and_padding = padded_columns(columns());
  if (!bits_) {
    bits_ =
        device_array<std::uint32_t>(block_tokens(DeviceMethod::tensor) / 32 * columns_and_padding);
  }
  // Both products take words in steps of 16; bits past the last token are zero.
  const auto words = static_cast<std::uint32_t>(ceil_of(ceil_of(block.tokens, 32), 16) * 16);
  const std::uint32_t words_per_block = kWordsPerWarp * (kThreads / 32);
  set_bits<<<dim3(as_grid(ceil_of(words, words_per_block)), columns_and_padding / 32), kThreads, 0,
             stream>>>(block, experts_, words, bits_.get());
  check_launch("set bits");
  load_of_bits<<<as_grid(ceil_of(columns(), kThreads / 32)), kThreads, 0, stream>>>(
      bits_.get(), columns(), words, expert_table_.get());
  check_launch("count experts");
  if (gram_tiles_.empty()) return;
  const GramPlan plan{places_.get(), layers_, experts_};
  // Enough blocks to fill the device, and no more: each adds all its cells to the table.
  const std::uint64_t share = ceil_of(words * gram_tiles_.size(), multiprocessors_ * 4u);
  const auto gram_words =
      static_cast<std::uint32_t>(std::max<std::uint64_t>(ceil_of(share, 16) * 16, kGramWords));
  const dim3 grid(as_grid(gram_tiles_.size()), as_grid(ceil_of(words, gram_words)));
  if (tensor) {
    gram_tensor<<<grid, 128, 0, stream>>>(bits_.get(), words, gram_words, gram_tile_list_.get(),
                                          plan, pair_table_.get());
  } else {
    gram_popcount<<<grid, 256, 0, stream>>>(bits_.get(), words, gram_words, gram_tile_list_.get(),
                                            plan, pair_table_.get());
  }
  check_launch("count pairs");
}

void PairCounter::read(const CountTables& tables, cudaStream_t stream) const {
  // Rows of a ring are counted on a stream of their own.
  check(cudaDeviceSynchronize(), "count");
  const auto staging = pinned_array<std::uint64_t>(kReadCells);
  const auto add = [&](const std::uint64_t* device, std::uint64_t cells, std::uint64_t* host) {
    for (std::uint64_t first = 0; first < cells; first += kReadCells) {
      const std::uint64_t piece = std::min(kReadCells, cells - first);
      check(cudaMemcpyAsync(staging.get(), device + first, piece * sizeof(std::uint64_t),
                            cudaMemcpyDeviceToHost, stream),
            "read the counts");
      check(cudaStreamSynchronize(stream), "read the counts");
      for (std::uint64_t i = 0; i < piece; ++i) host[first + i] += staging[i];
    }
  };
  add(expert_table_.get(), std::uint64_t{layers_} * experts_, tables.expert);
  add(pair_table_.get(), pairs_.size() * experts_ * experts_, tables.pairs);
}

}  // namespace routestats::cuda
