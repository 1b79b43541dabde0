#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <utility>

namespace routestats {

// How many tokens ahead to prefetch: this takes about as long as memory needs to answer.
inline constexpr std::size_t kFetchAhead = 24;

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
  // If set, token t of layer l is row row_order[l * order_stride + t] of the array. A trace with
  // permuted or resampled rows is counted this way without a copy.
  const std::uint32_t* row_order = nullptr;
  std::size_t order_stride = 0;

  // Where the slots of one token and layer begin.
  const std::byte* row(std::size_t token, std::size_t layer) const {
    const std::size_t place =
        row_order == nullptr ? token : row_order[layer * order_stride + token];
    return data + static_cast<std::ptrdiff_t>(place) * token_stride +
           static_cast<std::ptrdiff_t>(layer) * layer_stride;
  }

  // The address to prefetch while `token` is read. A kernel that reads few layers of every token
  // jumps through memory in steps that the machine does not foresee. This returns an address and
  // does not prefetch by itself: the compiler would drop a function without effect.
  const std::byte* row_ahead(std::size_t token, std::size_t layer) const {
    return row(token + kFetchAhead < tokens ? token + kFetchAhead : token, layer);
  }

  ExpertView tokens_from(std::size_t first, std::size_t count) const;
  ExpertView layers_from(std::size_t first, std::size_t count) const;
  ExpertView first_slots(std::size_t count) const;
};

// The value at one place, read as unsigned. check_experts refuses negative ones.
template <class Unsigned>
Unsigned load_id(const ExpertView& view, std::size_t token, std::size_t layer, std::size_t slot) {
  Unsigned id;
  std::memcpy(&id, view.row(token, layer) + static_cast<std::ptrdiff_t>(slot) * view.slot_stride,
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

// Rows of an array for each layer: [layers, tokens] without gaps. A row may stand there several
// times or not at all.
struct RowOrder {
  const std::uint32_t* rows;
  std::size_t tokens;
};

// The same array read in that order. Throws RowOutOfRange, which names the first row that does not
// exist.
ExpertView reordered(const ExpertView& view, const RowOrder& order);

class RowOutOfRange : public std::out_of_range {
  using std::out_of_range::out_of_range;
};

// The most experts of a layer: their ids fit 16 bits.
inline constexpr std::size_t kMaxExperts = 65'536;

// Throws std::invalid_argument unless `experts` is 1..kMaxExperts.
void check_num_experts(std::size_t experts);

// Whether all ids are in 0..experts-1. Runs on the calling thread.
bool experts_below(const ExpertView& view, std::size_t experts);

// An id that is not below the number of experts; what() names the first one in row-major order.
class ExpertOutOfRange : public std::out_of_range {
  using std::out_of_range::out_of_range;
};

// Throws ExpertOutOfRange unless all ids of a view without a row order are in 0..experts-1.
// `first_token` is the number by which the caller knows token 0 of the view.
void check_experts(const ExpertView& view, std::size_t experts, std::uint64_t first_token,
                   unsigned threads);

// A token names an expert twice at one layer where a set is needed; what() says where.
class ExpertRepeated : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// The first (token, layer, slot) whose id an earlier slot of the same layer already holds.
struct RepeatedExpert {
  std::size_t token;
  std::size_t layer;
  std::size_t slot;
  std::size_t earlier_slot;
  std::uint64_t id;
};
std::optional<RepeatedExpert> first_repeated(const ExpertView& view);

}  // namespace routestats
