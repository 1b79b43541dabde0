#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace routestats {

// A [tokens, layers, slots] array of integers of any width, strided and possibly unaligned; the
// memory is the caller's. Strides are in bytes and may be negative or zero.
struct ExpertView {
  const std::byte* data;
  unsigned item_bytes;  // 1, 2, 4 or 8, in the machine's byte order
  bool is_signed;
  std::size_t tokens;
  std::size_t layers;
  std::size_t slots;
  std::ptrdiff_t token_stride;
  std::ptrdiff_t layer_stride;
  std::ptrdiff_t slot_stride;

  ExpertView tokens_from(std::size_t first, std::size_t count) const;
  ExpertView first_slots(std::size_t count) const;
};

// The value at one place, read as unsigned: a negative id becomes a huge one, above any limit.
template <class Unsigned>
Unsigned load_id(const ExpertView& view, std::size_t token, std::size_t layer, std::size_t slot) {
  Unsigned id;
  std::memcpy(&id,
              view.data + static_cast<std::ptrdiff_t>(token) * view.token_stride +
                  static_cast<std::ptrdiff_t>(layer) * view.layer_stride +
                  static_cast<std::ptrdiff_t>(slot) * view.slot_stride,
              sizeof id);
  return id;
}

// Calls `body(zero)` where `zero` has the unsigned type of the view's items.
template <class Body>
void with_id_type(const ExpertView& view, Body&& body) {
  switch (view.item_bytes) {
    case 1:
      return std::forward<Body>(body)(std::uint8_t{0});
    case 2:
      return std::forward<Body>(body)(std::uint16_t{0});
    case 4:
      return std::forward<Body>(body)(std::uint32_t{0});
    case 8:
      return std::forward<Body>(body)(std::uint64_t{0});
    default:
      throw std::invalid_argument("experts: expected items of 1, 2, 4 or 8 bytes");
  }
}

// Whether all ids are in 0..experts-1; on the caller's thread.
bool experts_below(const ExpertView& view, std::size_t experts);

// An id that is not below the number of experts; what() names the first one in row-major order.
class ExpertOutOfRange : public std::out_of_range {
  using std::out_of_range::out_of_range;
};

// Throws ExpertOutOfRange unless all ids are in 0..experts-1. `first_token` is the number by which
// the caller knows token 0 of the view.
void check_experts(const ExpertView& view, std::size_t experts, std::uint64_t first_token,
                   unsigned threads);

}  // namespace routestats
