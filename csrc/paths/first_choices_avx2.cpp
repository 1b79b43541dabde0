// Compiled with -mavx2: nothing here may be inlined elsewhere or come from a shared template.
#include <immintrin.h>

#include "paths/first_choices.hpp"

namespace routestats {
namespace {

constexpr std::size_t kWordLayers = 8;

// Moves the first byte of each layer in a vector to its place in a word; other bytes become zero.
// `kFirst` is the layer of the word at which the vector begins.
template <int kSlots, int kFirst>
inline __m256i place_choices(const std::uint8_t* from) {
  struct Places {
    alignas(32) std::uint8_t source[32];
    constexpr Places() : source() {
      for (int i = 0; i < 32; ++i) source[i] = 0x80;
      for (int i = 0; i < 32 / kSlots; ++i) {
        const int lane = i * kSlots / 16 * 16;  // a shuffle stays within 16 bytes
        source[lane + 7 - kFirst - i] = static_cast<std::uint8_t>(i * kSlots % 16);
      }
    }
  };
  static constexpr Places places;
  return _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
                             _mm256_load_si256(reinterpret_cast<const __m256i*>(places.source)));
}

// The word of eight layers of 4 or 8 slots.
template <int kSlots>
inline std::uint64_t word_of(const std::uint8_t* layers) {
  __m256i placed = place_choices<kSlots, 0>(layers);
  if constexpr (kSlots == 8) {
    placed = _mm256_or_si256(placed, place_choices<kSlots, 4>(layers + 32));
  }
  const __m128i both =
      _mm_or_si128(_mm256_castsi256_si128(placed), _mm256_extracti128_si256(placed, 1));
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(both));
}

template <int kSlots>
void choose_of_row(const std::uint8_t* row, std::size_t layers, std::uint64_t* words) {
  for (; layers >= kWordLayers; layers -= kWordLayers, row += kWordLayers * kSlots) {
    *words++ = word_of<kSlots>(row);
  }
  if (layers == 0) return;
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < kWordLayers; ++i) {
    word = word << 8 | (i < layers ? row[i * kSlots] : 0);
  }
  *words = word;
}

}  // namespace

FirstChoices first_choices_avx2(std::size_t slots) {
  if (slots == 4) return choose_of_row<4>;
  if (slots == 8) return choose_of_row<8>;
  return nullptr;
}

}  // namespace routestats
