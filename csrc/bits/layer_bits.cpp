#include "bits/layer_bits.hpp"

#include <algorithm>

#include "bits/layer_bits_fill.hpp"

namespace routestats {
namespace {

FillBits fill_for(std::size_t words, Isa isa) {
  const FillBitsOfIsa& fill = [&]() -> const FillBitsOfIsa& {
#if ROUTESTATS_X86_VARIANTS
    if (isa == Isa::avx512) return fill_bits_avx512;
    if (isa == Isa::avx2) return fill_bits_avx2;
#endif
    static_cast<void>(isa);
    return fill_bits_portable;
  }();
  switch (words) {
    case 1:
      return fill.one;
    case 2:
      return fill.two;
    case 4:
      return fill.four;
    default:
      return nullptr;
  }
}

bool fill_bit_by_bit(const std::uint16_t* ids, std::size_t tokens, std::size_t slots,
                     std::size_t words, std::uint64_t* bits) {
  std::uint64_t twice = 0;
  for (std::size_t t = 0; t < tokens; ++t, ids += slots, bits += words) {
    std::fill_n(bits, words, std::uint64_t{0});
    for (std::size_t k = 0; k < slots; ++k) {
      const std::uint64_t bit = std::uint64_t{1} << (ids[k] % 64);
      twice |= bits[ids[k] / 64] & bit;
      bits[ids[k] / 64] |= bit;
    }
  }
  return twice == 0;
}

}  // namespace

const FillBitsOfIsa fill_bits_portable{fill_bits<1>, fill_bits<2>, fill_bits<4>};

std::size_t layer_words(std::size_t experts) {
  const std::size_t words = (experts + 63) / 64;
  return words == 3 ? 4 : words;
}

std::vector<std::uint64_t> one_hot_words(std::size_t experts) {
  const std::size_t width = layer_words(experts);
  std::vector<std::uint64_t> words(experts * width);
  for (std::size_t e = 0; e < experts; ++e) {
    words[e * width + e / 64] = std::uint64_t{1} << (e % 64);
  }
  return words;
}

LayerBits::LayerBits(std::size_t experts, Isa isa)
    : words_(layer_words(experts)), fill_(fill_for(words_, isa)) {
  if (fill_ != nullptr) one_hot_ = one_hot_words(experts);
}

bool LayerBits::fill(const std::uint16_t* ids, std::size_t tokens, std::size_t slots,
                     std::uint64_t* bits) const {
  return fill_ != nullptr ? fill_(one_hot_.data(), ids, tokens, slots, bits)
                          : fill_bit_by_bit(ids, tokens, slots, words_, bits);
}

}  // namespace routestats
