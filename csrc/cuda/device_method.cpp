#include "cuda/device_method.hpp"

#include <algorithm>

#include "cuda/device_lists.hpp"

namespace routestats {
namespace {

// Picoseconds per token and pair of layers. NOT MEASURED: worked out for an H100 (132
// multiprocessors at 1.7 GHz) from published unit rates.
//
//   scatter    64-bit increments in the level-2 cache, slots^2 of them: a quarter of the rate below
//   histogram  about 10 shared-memory increments per clock and multiprocessor, slots^2 of them
//   popcount   16 per clock and multiprocessor, 32 tokens each, experts^2 of them
//   tensor     1-bit products at half of the A100's 32,768 operations per clock and multiprocessor;
//              what a later device makes of them is not published
//   lists      one row of 256 columns per entry of a list, slots * experts / 256 of them. Four rows
//              take 2.1 clocks of shared memory (their banks collide) and as many of logic; lists
//              are filled up, and the longest of four side by side decides: half as much again
//
// All but scatter also add a tile, experts^2 increments, to the table at least once.
constexpr double kPerTableIncrement = 1.8;
constexpr double kPerIncrement = 0.45;
constexpr double kPerPopcountCell = 0.0087;
constexpr double kPerTensorCell = 0.00054;
constexpr double kPerListRow = 4.2;

}  // namespace

const char* name_of(DeviceMethod method) {
  switch (method) {
    case DeviceMethod::scatter:
      return "scatter";
    case DeviceMethod::histogram:
      return "histogram";
    case DeviceMethod::popcount:
      return "popcount";
    case DeviceMethod::tensor:
      return "tensor";
    case DeviceMethod::lists:
      break;
  }
  return "lists";
}

std::uint32_t tile_rows(std::uint32_t experts, std::uint64_t shared_bytes) {
  const std::uint64_t rows = shared_bytes / (std::uint64_t{experts} * sizeof(std::uint32_t));
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(rows, experts));
}

bool is_possible(DeviceMethod method, const DeviceWork& work) {
  switch (method) {
    case DeviceMethod::scatter:
      return true;
    case DeviceMethod::histogram:
      return tile_rows(work.experts, work.shared_bytes) > 0;
    case DeviceMethod::popcount:
      return work.distinct;
    case DeviceMethod::tensor:
      return work.distinct && work.tensor_cores;
    case DeviceMethod::lists:
      break;
  }
  // A list's entries are numbered in 32 bits, and all of a block and layer lie in shared memory.
  return work.distinct && work.experts <= 65'536 && work.slots <= 1024 &&
         ListLayout{1, work.experts, work.slots}.making_bytes() <= work.shared_bytes &&
         ListLayout::summing_bytes() <= work.shared_bytes;
}

std::optional<double> estimated_cost(DeviceMethod method, const DeviceWork& work) {
  if (!is_possible(method, work)) return std::nullopt;
  const double slots = work.slots;
  const double cells = static_cast<double>(work.experts) * work.experts;
  const double tokens = std::max(1.0, static_cast<double>(work.tokens));
  const double tile = kPerTableIncrement * cells / tokens;
  switch (method) {
    case DeviceMethod::scatter:
      return kPerTableIncrement * slots * slots;
    case DeviceMethod::histogram: {
      // The tokens are read again for every slab of rows that fits.
      const std::uint32_t rows = tile_rows(work.experts, work.shared_bytes);
      const double slabs = (work.experts + rows - 1) / rows;
      return tile + kPerIncrement * (slots * slots + (slabs - 1) * slots);
    }
    case DeviceMethod::popcount:
      return tile + kPerPopcountCell * cells;
    case DeviceMethod::tensor:
      return tile + kPerTensorCell * cells;
    case DeviceMethod::lists:
      break;
  }
  return tile + kPerListRow * slots * work.experts / 256;
}

}  // namespace routestats
