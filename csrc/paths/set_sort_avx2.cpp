// Compiled with -mavx2: nothing here may be inlined elsewhere or come from a shared template.
#include <immintrin.h>

#include "paths/set_sort.hpp"

namespace routestats {
namespace {

constexpr std::size_t kLanes = 32;

// A round of a sorting network: for each place, the place with which it is compared, or itself. The
// smaller value goes to the lower place.
using Round = std::uint8_t[8];
constexpr Round kRoundsOf2[] = {{1, 0}};
constexpr Round kRoundsOf4[] = {{2, 3, 0, 1}, {1, 0, 3, 2}, {0, 2, 1, 3}};
// 19 comparisons in 6 rounds; for 8 values both are the least (Knuth, TAOCP 3, 5.3.4).
constexpr Round kRoundsOf8[] = {{2, 3, 0, 1, 6, 7, 4, 5}, {4, 5, 6, 7, 0, 1, 2, 3},
                                {1, 0, 3, 2, 5, 4, 7, 6}, {0, 1, 4, 5, 2, 3, 6, 7},
                                {0, 4, 2, 6, 1, 5, 3, 7}, {0, 2, 1, 4, 3, 6, 5, 7}};

template <std::size_t kSlots>
constexpr const auto& rounds() {
  if constexpr (kSlots == 2) {
    return kRoundsOf2;
  } else if constexpr (kSlots == 4) {
    return kRoundsOf4;
  } else {
    return kRoundsOf8;
  }
}

template <std::size_t kSlots>
struct Network {
  static constexpr std::size_t kRounds = sizeof(rounds<kSlots>()) / sizeof(Round);
  alignas(kLanes) std::uint8_t partner[kRounds][kLanes]{};
  alignas(kLanes) std::uint8_t takes_larger[kRounds][kLanes]{};
  alignas(kLanes) std::uint8_t before[kLanes]{};  // the place before it in the group
  std::uint32_t has_before = 0;

  constexpr Network() {
    for (std::size_t i = 0; i < kLanes; ++i) {
      const std::size_t place = i % kSlots;
      const std::size_t group = i % 16 - place;  // a shuffle stays within 16 bytes
      for (std::size_t r = 0; r < kRounds; ++r) {
        const std::size_t other = rounds<kSlots>()[r][place];
        partner[r][i] = static_cast<std::uint8_t>(group + other);
        takes_larger[r][i] = other < place ? 0xff : 0;
      }
      before[i] = static_cast<std::uint8_t>(group + (place == 0 ? 0 : place - 1));
      if (place != 0) has_before |= std::uint32_t{1} << i;
    }
  }
};

inline __m256i load(const std::uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// Sorts one vector, writes its words, and returns the places that equal the place before them.
template <std::size_t kSlots>
inline std::uint32_t sort_vector(__m256i ids, std::uint8_t* to) {
  static constexpr Network<kSlots> network;
  for (std::size_t r = 0; r < Network<kSlots>::kRounds; ++r) {
    const __m256i other = _mm256_shuffle_epi8(ids, load(network.partner[r]));
    ids = _mm256_blendv_epi8(_mm256_min_epu8(ids, other), _mm256_max_epu8(ids, other),
                             load(network.takes_larger[r]));
  }
  const __m256i before = _mm256_shuffle_epi8(ids, load(network.before));
  const __m256i reversed_words =
      _mm256_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
                       15, 14, 13, 12, 11, 10, 9, 8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_shuffle_epi8(ids, reversed_words));
  return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(ids, before))) &
         network.has_before;
}

// The masks of 16 pairs of ids, each in the lower byte of 16 bits, with clear bits for members.
// Sets bits in `repeated` for pairs of one expert.
inline __m256i mask_pairs(__m256i ids, __m256i& repeated) {
  const __m256i bit_of = _mm256_setr_epi8(-128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                                          -128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256i bits = _mm256_shuffle_epi8(bit_of, ids);
  const __m256i second = _mm256_srli_epi16(bits, 8);
  repeated = _mm256_or_si256(repeated, _mm256_and_si256(bits, second));
  const __m256i nobody = _mm256_set1_epi16(0xff);
  return _mm256_andnot_si256(_mm256_or_si256(bits, second), nobody);
}

template <std::size_t kSlots>
bool sort_row(const std::uint8_t* row, std::size_t bytes, std::uint64_t* words) {
  auto* to = reinterpret_cast<std::uint8_t*>(words);
  std::uint32_t repeated = 0;
  std::size_t i = 0;
  for (; i + kLanes <= bytes; i += kLanes) {
    repeated |= sort_vector<kSlots>(load(row + i), to + i);
  }
  if (i < bytes) {
    const std::size_t left = bytes - i;
    alignas(kLanes) std::uint8_t tail[kLanes] = {};
    alignas(kLanes) std::uint8_t sorted[kLanes];
    __builtin_memcpy(tail, row + i, left);
    const std::uint32_t valid = (std::uint32_t{1} << left) - 1;
    repeated |= sort_vector<kSlots>(load(tail), sorted) & valid;
    __builtin_memcpy(to + i, sorted, (left + 7) / 8 * 8);
  }
  return repeated == 0;
}

}  // namespace

bool set_masks_avx2(const std::uint8_t* row, std::size_t bytes, std::uint64_t* words) {
  const __m256i reversed_words =
      _mm256_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
                       15, 14, 13, 12, 11, 10, 9, 8);
  __m256i repeated = _mm256_setzero_si256();
  std::size_t i = 0;
  for (; i + 2 * kLanes <= bytes; i += 2 * kLanes, words += 4) {
    const __m256i low = mask_pairs(load(row + i), repeated);
    const __m256i high = mask_pairs(load(row + i + kLanes), repeated);
    const __m256i masks = _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words),
                        _mm256_shuffle_epi8(masks, reversed_words));
  }
  bool distinct = _mm256_testz_si256(repeated, repeated) != 0;
  while (i < bytes) {
    std::uint64_t word = 0;
    for (unsigned behind = 64; behind > 0 && i < bytes; i += 2) {
      behind -= 8;
      const unsigned members = 0x80u >> row[i] | 0x80u >> row[i + 1];
      word |= static_cast<std::uint64_t>(0xff ^ members) << behind;
      distinct = distinct && row[i] != row[i + 1];
    }
    *words++ = word;
  }
  return distinct;
}

SetSort set_sort_avx2(std::size_t slots) {
  if (slots == 2) return sort_row<2>;
  if (slots == 4) return sort_row<4>;
  if (slots == 8) return sort_row<8>;
  return nullptr;
}

}  // namespace routestats
