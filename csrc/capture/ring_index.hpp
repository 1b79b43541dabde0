#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.hpp"

// Index arithmetic of the capture ring, shared by the host ring and device kernels.
//
// Rows are numbered 0, 1, 2, ... over the life of the ring; row r lies in slot r % capacity. A slot
// holds the ids (or weights) of the row as [layer][rank], so a drained row is one piece.
namespace routestats {

struct RingExtents {
  std::uint64_t capacity;  // rows
  std::uint32_t layers;
  std::uint32_t top_k;

  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t row_width() const {
    return std::uint64_t{layers} * top_k;
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t slot(std::uint64_t row) const {
    return row % capacity;
  }
  // The element of rank 0 of `layer` in the slot of `row`.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t offset(std::uint64_t row,
                                                        std::uint32_t layer) const {
    return slot(row) * row_width() + std::uint64_t{layer} * top_k;
  }
  // The slot `rows` further on than `first_slot`; rows < capacity. Kernels need no division for it.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t slot_after(std::uint64_t first_slot,
                                                            std::uint64_t rows) const {
    const std::uint64_t slot = first_slot + rows;
    return slot < capacity ? slot : slot - capacity;
  }
  // How many rows from `row` on lie side by side before the ring wraps, at most `rows`.
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t contiguous(std::uint64_t row,
                                                            std::uint64_t rows) const {
    const std::uint64_t until_wrap = capacity - slot(row);
    return rows < until_wrap ? rows : until_wrap;
  }
};

}  // namespace routestats
