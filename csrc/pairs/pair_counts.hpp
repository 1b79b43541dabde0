#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/cpu.hpp"
#include "base/expert_view.hpp"
#include "pairs/pair_method.hpp"

namespace routestats {

struct LayerPair {
  std::uint32_t source;
  std::uint32_t target;
};

// The tables that counts are added to: row-major, owned by the caller.
struct CountTables {
  std::uint64_t* expert;  // [layers, experts]: slots that hold the expert
  std::uint64_t* pairs;   // [pairs, experts, experts]: (source slot, target slot) that hold (e, f)
};

struct CountOptions {
  unsigned threads = 1;
  std::size_t counted_slots = 0;        // count only the first slots of each layer; 0: all
  std::uint64_t first_token = 0;        // the number of token 0 in error messages
  std::optional<RowOrder> row_order{};  // which rows to count; by default all, in order
  // For tests and benchmarks. By default the fastest ones for the shape are taken.
  std::optional<Method> method{};
  std::optional<Isa> isa{};
  std::size_t block_tokens = 0;
};

// Adds the exact counts of all tokens, in blocks of bounded memory. An expert may repeat within the
// slots of a token and layer; every pair of slots counts. Throws before anything is added:
// ExpertOutOfRange for an id in any slot, counted or not, RowOutOfRange, and std::invalid_argument
// for a layer or instruction set that does not exist.
void count_pairs(const ExpertView& view, std::size_t experts, std::span<const LayerPair> pairs,
                 const CountTables& tables, const CountOptions& options);

}  // namespace routestats
