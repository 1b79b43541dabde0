#include "routestats/device_method.hpp"

#include <algorithm>

namespace routestats {
namespace {

// Picoseconds per token and pair of layers. NOT MEASURED: worked out for an H100 (132
// multiprocessors at 1.7 GHz) from published unit rates, and to be replaced by what
// bench/gpu_counts.py prints for every method on a device.
//
//   histogram  about 10 shared-memory increments per clock and multiprocessor, slots^2 of them
//   popcount   16 per clock and multiprocessor, 32 tokens each, experts^2 of them
//   tensor     1-bit products at half of the A100's 32,768 operations per clock and multiprocessor
constexpr double kPerIncrement = 0.45;
constexpr double kPerPopcountCell = 0.0087;
constexpr double kPerTensorCell = 0.00054;

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
      break;
  }
  return "tensor";
}

std::uint32_t tile_rows(std::uint32_t experts, std::uint64_t shared_bytes) {
  const std::uint64_t rows = shared_bytes / (std::uint64_t{experts} * sizeof(std::uint32_t));
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(rows, experts));
}

DeviceMethod choose_device_method(const DeviceWork& work) {
  const double increments = static_cast<double>(work.slots) * work.slots;
  const double cells = static_cast<double>(work.experts) * work.experts;
  const std::uint32_t rows = tile_rows(work.experts, work.shared_bytes);
  // A tile has to be cleared and added to the table, which only many tokens pay for.
  if (rows == 0 || static_cast<double>(work.tokens) * increments < cells) {
    return DeviceMethod::scatter;
  }
  // The tokens are read again for every slab of rows that fits.
  const double slabs = static_cast<double>((work.experts + rows - 1) / rows);
  const double histogram = kPerIncrement * (increments + (slabs - 1) * work.slots);
  if (!work.distinct) return DeviceMethod::histogram;
  if (work.tensor_cores && kPerTensorCell * cells < histogram) return DeviceMethod::tensor;
  return kPerPopcountCell * cells < histogram ? DeviceMethod::popcount : DeviceMethod::histogram;
}

}  // namespace routestats
