#pragma once

#include <cstdint>

#include "cuda/device_atomics.cuh"
#include "cuda/device_counts.hpp"
#include "cuda/launch.hpp"

// Kernels that count. The work of a thread lies in device_counts.hpp.
namespace routestats::cuda {

// Layer-major copy [layers, tokens, slots]. Blocks run over tokens, so that a warp reads whole
// tokens and the cache serves the layers' scattered writes.
__global__ void __launch_bounds__(kThreads)
    pack(const __grid_constant__ IdView view, std::uint16_t* packed) {
  const std::uint64_t choices = view.tokens * view.layers;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < choices;
       i += stride) {
    const std::uint64_t token = i / view.layers;
    const auto layer = static_cast<std::uint32_t>(i - token * view.layers);
    std::uint16_t* out = packed + (layer * view.tokens + token) * view.slots;
    for (std::uint32_t k = 0; k < view.slots; ++k) {
      out[k] = static_cast<std::uint16_t>(view.load(token, layer, k));
    }
  }
}

// Loads of one layer (blockIdx.x) over a share of the tokens (blockIdx.y): privatised in shared
// memory where `narrow` cells fit, else straight into the table.
__global__ void __launch_bounds__(kThreads)
    load(const __grid_constant__ IdView view, std::uint32_t experts, bool narrow,
         std::uint64_t tokens_per_block, std::uint64_t* table) {
  auto* const cells = dynamic_shared<std::uint32_t>();
  const std::uint32_t layer = blockIdx.x;
  std::uint64_t* const out = table + std::uint64_t{layer} * experts;
  const std::uint64_t first = blockIdx.y * tokens_per_block;
  const std::uint64_t last = min(first + tokens_per_block, view.tokens);
  if (narrow) {
    for (std::uint32_t e = threadIdx.x; e < experts; e += kThreads) cells[e] = 0;
    __syncthreads();
  }
  for (std::uint64_t token = first + threadIdx.x; token < last; token += kThreads) {
    for (std::uint32_t k = 0; k < view.slots; ++k) {
      const auto id = static_cast<std::uint32_t>(view.load(token, layer, k));
      if (narrow) {
        DeviceAtomics::add(cells + id, 1u);
      } else {
        DeviceAtomics::add(out + id, std::uint64_t{1});
      }
    }
  }
  if (!narrow) return;
  __syncthreads();
  for (std::uint32_t e = threadIdx.x; e < experts; e += kThreads) {
    if (cells[e] != 0) DeviceAtomics::add(out + e, std::uint64_t{cells[e]});
  }
}

// Few tokens: one thread per token and pair, straight into the table.
__global__ void __launch_bounds__(kThreads)
    scatter(const __grid_constant__ IdView view, std::uint32_t experts, const LayerPair* pairs,
            std::uint32_t num_pairs, std::uint64_t* table) {
  const std::uint64_t items = view.tokens * num_pairs;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kThreads;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < items;
       i += stride) {
    const std::uint64_t token = i / num_pairs;
    const std::uint64_t place = i - token * num_pairs;
    const LayerPair pair = pairs[place];
    std::uint64_t* const tile = table + place * experts * experts;
    for (std::uint32_t a = 0; a < view.slots; ++a) {
      std::uint64_t* const row = tile + view.load(token, pair.source, a) * experts;
      for (std::uint32_t b = 0; b < view.slots; ++b) {
        DeviceAtomics::add(row + view.load(token, pair.target, b), std::uint64_t{1});
      }
    }
  }
}

inline constexpr unsigned kHistogramThreads = 512;

// One pair of layers (blockIdx.x), a share of the tokens (blockIdx.y), a slab of source experts
// (blockIdx.z): a tile in shared memory, then into the table.
template <std::uint32_t FixedSlots>
__global__ void __launch_bounds__(kHistogramThreads)
    histogram(const std::uint16_t* packed, std::uint64_t tokens, std::uint32_t slots,
              std::uint32_t experts, const LayerPair* pairs, std::uint64_t tokens_per_block,
              std::uint32_t slab_rows, std::uint64_t* table) {
  auto* const tile = dynamic_shared<std::uint32_t>();
  const std::uint32_t first_row = blockIdx.z * slab_rows;
  const TileRows rows{first_row, min(slab_rows, experts - first_row), experts};
  const std::uint32_t cells = rows.rows * experts;
  for (std::uint32_t i = threadIdx.x; i < cells; i += kHistogramThreads) tile[i] = 0;
  __syncthreads();
  const LayerPair pair = pairs[blockIdx.x];
  const std::uint16_t* const source = packed + pair.source * tokens * slots;
  const std::uint16_t* const target = packed + pair.target * tokens * slots;
  const std::uint64_t first = blockIdx.y * tokens_per_block;
  const std::uint64_t last = min(first + tokens_per_block, tokens);
  for (std::uint64_t t = first + threadIdx.x; t < last; t += kHistogramThreads) {
    add_token<FixedSlots, DeviceAtomics>(source + t * slots, target + t * slots, slots, rows, tile);
  }
  __syncthreads();
  std::uint64_t* const out = table + (std::uint64_t{blockIdx.x} * experts + first_row) * experts;
  for (std::uint32_t i = threadIdx.x; i < cells; i += kHistogramThreads) {
    if (tile[i] != 0) DeviceAtomics::add(out + i, std::uint64_t{tile[i]});
  }
}

// --- bits ---

// Words of a column that one warp makes: 32 bytes of it, a whole sector.
inline constexpr std::uint32_t kWordsPerWarp = 8;

// A warp makes 8 words (256 tokens) of 32 columns. `words` is the length of a column.
__global__ void __launch_bounds__(kThreads)
    set_bits(const __grid_constant__ IdView view, std::uint32_t experts, std::uint32_t words,
             std::uint32_t* bits) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t first_word =
      (blockIdx.x * (kThreads / 32) + threadIdx.x / 32) * kWordsPerWarp;
  if (first_word >= words) return;
  const std::uint32_t first_column = blockIdx.y * 32;
  std::uint32_t made[kWordsPerWarp];
#pragma unroll
  for (std::uint32_t w = 0; w < kWordsPerWarp; ++w) {
    const std::uint64_t token = (std::uint64_t{first_word} + w) * 32 + lane;
    std::uint32_t word = bits_of_token(view, experts, token, first_column);
#pragma unroll
    for (std::uint32_t distance = 16; distance != 0; distance /= 2) {
      const std::uint32_t other = __shfl_xor_sync(0xffffffffu, word, distance);
      word = transpose_stage(word, other, lane, distance);
    }
    made[w] = word;
  }
  auto* out =
      reinterpret_cast<uint4*>(bits + std::uint64_t{first_column + lane} * words + first_word);
  out[0] = make_uint4(made[0], made[1], made[2], made[3]);
  out[1] = make_uint4(made[4], made[5], made[6], made[7]);
}

// Loads from bits: a warp per column.
__global__ void __launch_bounds__(kThreads)
    load_of_bits(const std::uint32_t* bits, std::uint32_t columns, std::uint32_t words,
                 std::uint64_t* table) {
  const std::uint32_t column = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (column >= columns) return;
  const auto* in = reinterpret_cast<const uint4*>(bits + std::uint64_t{column} * words);
  std::uint32_t sum = 0;
  for (std::uint32_t w = threadIdx.x % 32; w < words / 4; w += 32) {
    const uint4 v = in[w];
    sum += static_cast<std::uint32_t>(__popc(v.x) + __popc(v.y) + __popc(v.z) + __popc(v.w));
  }
  sum = __reduce_add_sync(0xffffffffu, sum);
  if (threadIdx.x % 32 == 0) table[column] += sum;  // nobody else has this column
}

__device__ inline void multiply_bits(std::uint32_t (&sum)[4], const std::uint32_t (&a)[4],
                                     std::uint32_t b0, std::uint32_t b1) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  emulated_cuda::multiply_bits(sum, a, b0, b1);
#endif
}

// Bits times bits on the tensor cores: a block has 128 x 128 columns (a pair of tiles), its four
// warps 64 x 64 each, and a share of the words (blockIdx.y), a multiple of 16.
__global__ void __launch_bounds__(128)
    gram_tensor(const std::uint32_t* bits, std::uint32_t words, std::uint32_t words_per_block,
                const uint2* tiles, const __grid_constant__ GramPlan plan, std::uint64_t* table) {
  constexpr std::uint32_t kRows = 4;     // products of 16 x 8 down
  constexpr std::uint32_t kColumns = 8;  // and across
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t warp = threadIdx.x / 32;
  const uint2 tile = tiles[blockIdx.x];
  const std::uint32_t row0 = tile.x * kColumnTile + warp / 2 * 64;
  const std::uint32_t column0 = tile.y * kColumnTile + warp % 2 * 64;
  std::uint32_t sum[kRows][kColumns][4] = {};
  const std::uint32_t first = blockIdx.y * words_per_block;
  const std::uint32_t last = min(first + words_per_block, words);
  const std::uint32_t* const rows =
      bits + std::uint64_t{row0 + fragment_row(lane, 0)} * words + fragment_word(lane);
  const std::uint32_t* const columns =
      bits + std::uint64_t{column0 + fragment_row(lane, 0)} * words + fragment_word(lane);
  const auto read = [words](const std::uint32_t* from, std::uint32_t column, std::uint32_t word) {
    return __ldg(reinterpret_cast<const uint4*>(from + std::uint64_t{column} * words + word));
  };
  for (std::uint32_t word = first; word < last; word += 16) {
    std::uint32_t a[kRows][2][4];
#pragma unroll
    for (std::uint32_t m = 0; m < kRows; ++m) {
      const uint4 upper = read(rows, m * 16, word);
      const uint4 lower = read(rows, m * 16 + 8, word);
      a[m][0][0] = upper.x, a[m][0][1] = lower.x, a[m][0][2] = upper.y, a[m][0][3] = lower.y;
      a[m][1][0] = upper.z, a[m][1][1] = lower.z, a[m][1][2] = upper.w, a[m][1][3] = lower.w;
    }
#pragma unroll
    for (std::uint32_t n = 0; n < kColumns; ++n) {
      const uint4 b = read(columns, n * 8, word);
#pragma unroll
      for (std::uint32_t m = 0; m < kRows; ++m) {
        multiply_bits(sum[m][n], a[m][0], b.x, b.y);
        multiply_bits(sum[m][n], a[m][1], b.z, b.w);
      }
    }
  }
#pragma unroll
  for (std::uint32_t m = 0; m < kRows; ++m) {
#pragma unroll
    for (std::uint32_t n = 0; n < kColumns; ++n) {
#pragma unroll
      for (std::uint32_t i = 0; i < 4; ++i) {
        if (sum[m][n][i] == 0) continue;
        const std::uint64_t cell =
            plan.cell(row0 + m * 16 + sum_row(lane, i), column0 + n * 8 + sum_column(lane, i));
        if (cell != ~std::uint64_t{0}) {
          DeviceAtomics::add(table + cell, std::uint64_t{sum[m][n][i]});
        }
      }
    }
  }
}

// The same by AND and popcount. A block of 16 x 16 threads has 128 x 128 columns, 8 x 8 each, and
// stages words through shared memory.
__global__ void __launch_bounds__(256)
    gram_popcount(const std::uint32_t* bits, std::uint32_t words, std::uint32_t words_per_block,
                  const uint2* tiles, const __grid_constant__ GramPlan plan, std::uint64_t* table) {
  constexpr std::uint32_t kCells = 8;
  constexpr std::uint32_t kStage = 16;  // words
  // A column's words lie one past a multiple of the banks from its neighbour's.
  __shared__ std::uint32_t a[kColumnTile][kStage + 1];
  __shared__ std::uint32_t b[kColumnTile][kStage + 1];
  const uint2 tile = tiles[blockIdx.x];
  const std::uint32_t x = threadIdx.x % 16;
  const std::uint32_t y = threadIdx.x / 16;
  std::uint32_t sum[kCells][kCells] = {};
  const std::uint32_t first = blockIdx.y * words_per_block;
  const std::uint32_t last = min(first + words_per_block, words);
  for (std::uint32_t word = first; word < last; word += kStage) {
    __syncthreads();
    for (std::uint32_t i = threadIdx.x; i < kColumnTile * kStage; i += 256) {
      const std::uint32_t column = i / kStage;
      const std::uint32_t w = i % kStage;
      a[column][w] = bits[std::uint64_t{tile.x * kColumnTile + column} * words + word + w];
      b[column][w] = bits[std::uint64_t{tile.y * kColumnTile + column} * words + word + w];
    }
    __syncthreads();
    for (std::uint32_t w = 0; w < kStage; ++w) {
      std::uint32_t own[kCells];
      std::uint32_t other[kCells];
#pragma unroll
      for (std::uint32_t i = 0; i < kCells; ++i) {
        own[i] = a[y + 16 * i][w];
        other[i] = b[x + 16 * i][w];
      }
#pragma unroll
      for (std::uint32_t i = 0; i < kCells; ++i) {
#pragma unroll
        for (std::uint32_t j = 0; j < kCells; ++j) {
          sum[i][j] += static_cast<std::uint32_t>(__popc(own[i] & other[j]));
        }
      }
    }
  }
#pragma unroll
  for (std::uint32_t i = 0; i < kCells; ++i) {
#pragma unroll
    for (std::uint32_t j = 0; j < kCells; ++j) {
      if (sum[i][j] == 0) continue;
      const std::uint64_t cell =
          plan.cell(tile.x * kColumnTile + y + 16 * i, tile.y * kColumnTile + x + 16 * j);
      if (cell != ~std::uint64_t{0}) {
        DeviceAtomics::add(table + cell, std::uint64_t{sum[i][j]});
      }
    }
  }
}

}  // namespace routestats::cuda
