#include <algorithm>

#include "cuda/launch.hpp"
#include "cuda/list_kernels.cuh"
#include "cuda/pair_counter.hpp"
#include "cuda/pair_kernels.cuh"
#include "pairs/direct_tiles.hpp"

// How PairCounter counts a block of tokens by each of its methods.
namespace routestats::cuda {
namespace {

constexpr std::uint64_t kPackedBytes = 256u << 20;  // of a block that is counted by increments
constexpr std::uint64_t kBitBytes = 96u << 20;      // of one that is counted by bits, or its rows
constexpr std::uint64_t kListBytes = 256u << 20;    // and its lists
constexpr std::uint64_t kHistogramTokens = 16'384;  // per block of threads
constexpr std::uint32_t kGramWords =
    256;  // at least, per block of threads: adding up its cells costs as much

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

// Of a column of bits: both products take words in steps of 16; bits past the last token are zero.
std::uint64_t words_of(std::uint64_t tokens) { return ceil_of(ceil_of(tokens, 32), 16) * 16; }

std::uint32_t padded_columns(std::uint32_t columns) {
  return static_cast<std::uint32_t>(ceil_of(columns, kColumnTile) * kColumnTile);
}

}  // namespace

// Each may take all of a block's shared memory, whatever the counter's shape: the limit is the
// process's.
void load_pair_kernels(std::uint64_t shared_bytes) {
  const auto load_all = [](auto*... kernels) {
    (load_kernel(kernels, "load the kernels that count pairs"), ...);
  };
  const auto reserve_shared = [&](auto* kernel) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "reserve shared memory");
  };
  load_all(pack, load, scatter, set_bits, load_of_bits, gram_tensor, gram_popcount, make_lists,
           set_rows, sum_lists);
  reserve_shared(make_lists);
  reserve_shared(sum_lists);
  for (const std::uint32_t slots : {1u, 2u, 4u, 6u, 8u, 0u}) {
    load_all(histogram_of(slots));
    reserve_shared(histogram_of(slots));
  }
  load_check_kernels();
}

void PairCounter::reserve(std::uint64_t tokens, DeviceMethod method) {
  const std::uint64_t most = block_tokens(method);
  switch (method) {
    case DeviceMethod::scatter:
      return;
    case DeviceMethod::histogram: {
      const std::uint64_t row = std::uint64_t{layers_} * slots_;
      packed_.reserve(tokens * row, most * row, stream_);
      return;
    }
    case DeviceMethod::popcount:
    case DeviceMethod::tensor: {
      const std::uint64_t width = padded_columns(columns());
      bits_.reserve(words_of(tokens) * width, words_of(most) * width, stream_);
      return;
    }
    case DeviceMethod::lists: {
      const ListLayout layout = lists();
      const std::uint64_t blocks = ceil_of(tokens, kListBlockTokens);
      const std::uint64_t most_blocks = most / kListBlockTokens;
      entries_.reserve(layout.entries(blocks, 0), layout.entries(most_blocks, 0), stream_);
      begins_.reserve(layout.begins(blocks, 0), layout.begins(most_blocks, 0), stream_);
      rows_.reserve(layout.row_word(layout.groups(), tokens, 0, 0),
                    layout.row_word(layout.groups(), most, 0, 0), stream_);
    }
  }
}

void PairCounter::give_back_all_but(DeviceMethod method) {
  if (method != DeviceMethod::histogram) packed_.give_back();
  if (method != DeviceMethod::popcount && method != DeviceMethod::tensor) bits_.give_back();
  if (method != DeviceMethod::lists) {
    entries_.give_back();
    begins_.give_back();
    rows_.give_back();
  }
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
  launch("pack ids", stream_, {as_grid(striding(block.tokens * layers_))}, pack, block,
         packed_.get());
  const std::uint32_t rows = tile_rows(experts_, shared_bytes_);
  const Histogram kernel = histogram_of(block.slots);
  const std::uint64_t bytes = std::uint64_t{rows} * experts_ * sizeof(std::uint32_t);
  const std::uint64_t share = std::min<std::uint64_t>(kHistogramTokens, tile_capacity(slots_));
  const dim3 grid(num_pairs, as_grid(ceil_of(block.tokens, share)),
                  as_grid(ceil_of(experts_, rows)));
  launch("count pairs", stream_, {grid, kHistogramThreads, bytes}, kernel, packed_.get(),
         block.tokens, block.slots, experts_, pair_list_.get(), share, rows, pair_table_.get());
}

void PairCounter::count_by_bits(const IdView& block, bool tensor) {
  const std::uint32_t columns_and_padding = padded_columns(columns());
  const auto words = static_cast<std::uint32_t>(words_of(block.tokens));
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
  const std::uint64_t making = layout.making_bytes();
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
  const dim3 grid(as_grid(list_tiles_), as_grid(ceil_of(blocks, share)), as_grid(slabs));
  launch("count pairs", stream_, {grid, kListThreads, ListLayout::summing_bytes()}, sum_lists,
         rows_.get(), block.tokens, entries_.get(), begins_.get(), layout, list_tile_list_.get(),
         share, GramPlan{places_.get(), layers_, experts_}, pair_table_.get());
}

}  // namespace routestats::cuda
