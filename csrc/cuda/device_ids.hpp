#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.hpp"

// How a kernel reads and checks the ids of an array, one thread at a time. nvcc compiles it for the
// device, the tests compile it for the host.
namespace routestats {

// A [tokens, layers, slots] array of integers in the memory of its reader. Strides are in bytes;
// items are aligned.
struct IdView {
  const char* data;
  std::uint32_t item_bytes;  // 1, 2, 4 or 8
  std::uint64_t tokens;
  std::uint32_t layers;
  std::uint32_t slots;
  std::int64_t token_stride;
  std::int64_t layer_stride;
  std::int64_t slot_stride;

  // As unsigned: a negative id becomes a huge one, above every limit.
  ROUTESTATS_HOST_DEVICE std::uint64_t load(std::uint64_t token, std::uint32_t layer,
                                            std::uint32_t slot) const {
    const char* item = data + static_cast<std::int64_t>(token) * token_stride +
                       static_cast<std::int64_t>(layer) * layer_stride +
                       static_cast<std::int64_t>(slot) * slot_stride;
    switch (item_bytes) {
      case 1:
        return *reinterpret_cast<const std::uint8_t*>(item);
      case 2:
        return *reinterpret_cast<const std::uint16_t*>(item);
      case 4:
        return *reinterpret_cast<const std::uint32_t*>(item);
      default:
        return *reinterpret_cast<const std::uint64_t*>(item);
    }
  }
  ROUTESTATS_HOST_DEVICE IdView from(std::uint64_t first, std::uint64_t count) const {
    IdView part = *this;
    part.data += static_cast<std::int64_t>(first) * token_stride;
    part.tokens = count;
    return part;
  }
  ROUTESTATS_HOST_DEVICE IdView layers_from(std::uint32_t first, std::uint32_t count) const {
    IdView part = *this;
    part.data += static_cast<std::int64_t>(first) * layer_stride;
    part.layers = count;
    return part;
  }
};

// What is wrong with an array: the place of the first id that names no expert, and of the first id
// that an earlier slot of the same layer holds already. A place is
// (token * layers + layer) * slots + slot; kNowhere if there is no such id.
inline constexpr std::uint64_t kNowhere = ~std::uint64_t{0};
struct IdFaults {
  std::uint64_t first_bad = kNowhere;
  std::uint64_t first_repeated = kNowhere;
};

// An id from here on, read as unsigned, names no expert. Negative ids fill the upper half of their
// type, and that half may begin below the number of experts.
ROUTESTATS_HOST_DEVICE constexpr std::uint64_t id_limit(std::uint64_t experts,
                                                        std::uint32_t item_bytes, bool is_signed) {
  const std::uint64_t least_negative = std::uint64_t{1} << (8 * item_bytes - 1);
  return is_signed && least_negative < experts ? least_negative : experts;
}

// One thread per token and layer. `Atomics::minimum(word, value)` lowers a word.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void check_choices(const IdView& view, std::uint64_t limit,
                                                 std::uint64_t token, std::uint32_t layer,
                                                 IdFaults* faults) {
  const std::uint64_t place = (token * view.layers + layer) * view.slots;
  std::uint64_t repeated = kNowhere;
  for (std::uint32_t k = 0; k < view.slots; ++k) {
    const std::uint64_t id = view.load(token, layer, k);
    if (id >= limit) {
      Atomics::minimum(&faults->first_bad, place + k);
      return;
    }
    for (std::uint32_t j = 0; j < k && repeated == kNowhere; ++j) {
      if (view.load(token, layer, j) == id) repeated = place + k;
    }
  }
  if (repeated != kNowhere) Atomics::minimum(&faults->first_repeated, repeated);
}

}  // namespace routestats
