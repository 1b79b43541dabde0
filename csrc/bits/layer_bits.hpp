#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/cpu.hpp"

namespace routestats {

// Writes bits[tokens, words] of ids[tokens, slots]: the experts that a token chose. `one_hot` is
// [experts, words], the bit of each expert. Returns whether no token names an expert twice.
using FillBits = bool (*)(const std::uint64_t* one_hot, const std::uint16_t* ids,
                          std::size_t tokens, std::size_t slots, std::uint64_t* bits);

// Words of a token's bits at a layer: those of its experts, but never three, which are no vector.
// With a fourth they are one, and half a row of RowSums, which nothing has to be copied into.
std::size_t layer_words(std::size_t experts);

// [experts, layer_words(experts)]: each expert's bit.
std::vector<std::uint64_t> one_hot_words(std::size_t experts);

// Of layers of 1, 2 and 4 words; one set per instruction set.
struct FillBitsOfIsa {
  FillBits one;
  FillBits two;
  FillBits four;
};
extern const FillBitsOfIsa fill_bits_portable;
extern const FillBitsOfIsa fill_bits_avx2;
extern const FillBitsOfIsa fill_bits_avx512;

// The experts that tokens chose at a layer, as the bits of whole words.
class LayerBits {
 public:
  LayerBits(std::size_t experts, Isa isa);

  std::size_t words() const { return words_; }  // of a token
  bool fill(const std::uint16_t* ids, std::size_t tokens, std::size_t slots,
            std::uint64_t* bits) const;

 private:
  const std::size_t words_;
  const FillBits fill_;  // none where a table would not fit the first-level cache
  std::vector<std::uint64_t> one_hot_;
};

}  // namespace routestats
