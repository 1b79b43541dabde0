#pragma once

#include <cstddef>

#include "base/cpu.hpp"

namespace routestats {

// How a tile of pair counts is computed.
enum class Method {
  bitmap,       // AND + popcount of bit columns: E^2 / 64 word operations per 64 tokens
  lists,        // carry-save sums of bit rows: K * E / 512 vector operations per token
  block_lists,  // the same, with new lists and rows for each source layer of a block
  direct,       // one increment per pair of slots: K^2 per token
};

inline constexpr Method kMethods[] = {Method::bitmap, Method::lists, Method::block_lists,
                                      Method::direct};

const char* name_of(Method method);

struct PairShape {
  std::size_t layers;
  std::size_t experts;
  std::size_t slots;
  std::size_t pairs;  // of layers, at least 1
};

// The fastest method for this shape. pair_method.cpp has the rule and its measurements.
Method choose_method(const PairShape& shape, Isa isa);

}  // namespace routestats
