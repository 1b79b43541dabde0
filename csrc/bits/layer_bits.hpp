#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/cpu.hpp"

namespace routestats {

// Writes bits[tokens, words]: the experts in ids[tokens, slots] that each token chose. `one_hot` is
// [experts, words], the bit of each expert. Returns whether every token names distinct experts.
using FillBits = bool (*)(const std::uint64_t* one_hot, const std::uint16_t* ids,
                          std::size_t tokens, std::size_t slots, std::uint64_t* bits);

// Words for the bits of a token at a layer. Three words are rounded up to four: these are one
// vector and half a row of RowSums, so nothing has to be copied.
std::size_t layer_words(std::size_t experts);

// [experts, layer_words(experts)]: the bit of each expert.
std::vector<std::uint64_t> one_hot_words(std::size_t experts);

// Functions for layers of 1, 2 and 4 words; one set of them per instruction set.
struct FillBitsOfIsa {
  FillBits one;
  FillBits two;
  FillBits four;
};
extern const FillBitsOfIsa fill_bits_portable;
extern const FillBitsOfIsa fill_bits_avx2;
extern const FillBitsOfIsa fill_bits_avx512;

// The experts that tokens chose at a layer, as bits of whole words.
class LayerBits {
 public:
  LayerBits(std::size_t experts, Isa isa);

  std::size_t words() const { return words_; }  // of a token
  bool fill(const std::uint16_t* ids, std::size_t tokens, std::size_t slots,
            std::uint64_t* bits) const;

 private:
  const std::size_t words_;
  const FillBits fill_;  // empty if a table would not fit the first-level cache
  std::vector<std::uint64_t> one_hot_;
};

}  // namespace routestats
