#include "cuda/device_method.hpp"

#include <algorithm>

#include "cuda/device_lists.hpp"

namespace routestats {
namespace {

// Picoseconds. NOT MEASURED: worked out for an H100 (132 multiprocessors at 1.7 GHz) from published
// rates of its units.
//
//   kPerIncrement  one 64-bit increment in the level-2 cache
//   kPerListRow    one row of 256 columns. Four rows take 2.1 clocks of shared memory (their banks
//                  collide) and 2.1 of logic; half as much again, because lists are padded and a
//                  warp waits for the longest of its four
constexpr double kPerIncrement = 1.8;
constexpr double kPerListRow = 4.2;

}  // namespace

const char* name_of(DeviceMethod method) {
  return method == DeviceMethod::direct ? "direct" : "lists";
}

bool is_possible(DeviceMethod method, const DeviceWork& work) {
  if (method == DeviceMethod::direct) return true;
  // The lists of a block of tokens and a layer are numbered in 32 bits and lie in shared memory.
  return work.distinct && work.experts <= 65'536 && work.slots <= 1024 &&
         ListLayout{1, work.experts, work.slots}.making_bytes() <= work.shared_bytes &&
         ListLayout::summing_bytes() <= work.shared_bytes;
}

// Per token and pair of layers, `direct` takes K^2 increments. `lists` takes K * E / 256 rows, and
// adds E^2 sums to the table once in a call:
//
//                     1,000,000 tokens      1,000 tokens
//                     direct    lists       direct    lists
//   E = 8, K = 2         7.2     0.26          7.2     0.38   Mixtral
//   E = 128, K = 8     115      17           115      46      Qwen3
//   E = 256, K = 8     115      34           115     152      DeepSeek-V3
DeviceMethod choose_method(const DeviceWork& work) {
  if (!is_possible(DeviceMethod::lists, work)) return DeviceMethod::direct;
  const double experts = work.experts;
  const double slots = work.slots;
  const double tokens = std::max(1.0, static_cast<double>(work.tokens));
  const double direct = kPerIncrement * slots * slots;
  const double lists =
      kPerListRow * slots * experts / 256 + kPerIncrement * experts * experts / tokens;
  return lists < direct ? DeviceMethod::lists : DeviceMethod::direct;
}

}  // namespace routestats
