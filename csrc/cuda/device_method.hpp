#pragma once

#include <cstdint>

namespace routestats {

// How a device counts pairs. Both methods give the same counts.
enum class DeviceMethod {
  direct,  // increments in the table: any ids, any shape
  lists,   // lists of tokens x rows of bits, summed by carry-save adders: many tokens of sets
};
inline constexpr DeviceMethod kDeviceMethods[] = {DeviceMethod::direct, DeviceMethod::lists};

const char* name_of(DeviceMethod method);

struct DeviceWork {
  std::uint64_t tokens;
  std::uint32_t experts;
  std::uint32_t slots;
  bool distinct;               // no token names an expert twice at one layer
  std::uint64_t shared_bytes;  // the most that the device gives a block
};

// Whether the method can count this work at all.
bool is_possible(DeviceMethod method, const DeviceWork& work);

// The method that should take less time. The rule is an estimate, which bench/gpu_counts.py checks
// on a GPU.
DeviceMethod choose_method(const DeviceWork& work);

}  // namespace routestats
