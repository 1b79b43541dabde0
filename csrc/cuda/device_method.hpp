#pragma once

#include <cstdint>
#include <optional>

namespace routestats {

// How a device counts pairs. All give the same counts.
enum class DeviceMethod {
  scatter,    // increments straight into the table: few tokens
  histogram,  // increments into a tile in shared memory
  popcount,   // AND + popcount of bit columns
  tensor,     // the same on the tensor cores (1-bit matrix products)
  lists,      // lists of tokens x rows of bits, summed by carry-save adders
};
inline constexpr DeviceMethod kDeviceMethods[] = {DeviceMethod::scatter, DeviceMethod::histogram,
                                                  DeviceMethod::popcount, DeviceMethod::tensor,
                                                  DeviceMethod::lists};

const char* name_of(DeviceMethod method);

struct DeviceWork {
  std::uint64_t tokens;
  std::uint32_t layers;
  std::uint64_t pairs;  // of layers
  std::uint32_t experts;
  std::uint32_t slots;
  bool distinct;  // no token names an expert twice at one layer; bits and lists need that
  // The device's.
  bool tensor_cores;           // has 1-bit products
  std::uint64_t shared_bytes;  // per block, at most
};

// Whether the method can count such work at all.
bool is_possible(DeviceMethod method, const DeviceWork& work);

// What a token costs per pair of layers, in picoseconds on a large device; nothing where the method
// is not possible. An estimate: it says what is worth a trial (method_times.hpp), which comes
// first, and no more.
std::optional<double> estimated_cost(DeviceMethod method, const DeviceWork& work);

// Tile rows of `experts` 32-bit cells that fit into a block's shared memory; 0 if not one does.
std::uint32_t tile_rows(std::uint32_t experts, std::uint64_t shared_bytes);

}  // namespace routestats
