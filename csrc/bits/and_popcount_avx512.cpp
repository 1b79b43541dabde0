// Compiled with -mavx512f -mavx512vpopcntdq: nothing here may be inlined elsewhere or come from a
// shared template.
#include <immintrin.h>

#include "bits/and_popcount.hpp"

namespace routestats {
namespace {

constexpr std::size_t kLanes = 8;

// These machines count bits in one instruction, so a tree of adders would only cost time. Four
// target columns share the loads of the source column, which hides the latency of the sums.
inline void add_cells(const std::uint64_t* source, const std::uint64_t* target, std::size_t words,
                      std::size_t columns, std::uint64_t* cells) {
  __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                     _mm512_setzero_si512()};
  for (std::size_t i = 0; i < words; i += kLanes) {
    const __m512i a = _mm512_loadu_si512(source + i);
    for (std::size_t c = 0; c < columns; ++c) {
      const __m512i both = _mm512_and_si512(a, _mm512_loadu_si512(target + c * words + i));
      sums[c] = _mm512_add_epi64(sums[c], _mm512_popcnt_epi64(both));
    }
  }
  for (std::size_t c = 0; c < columns; ++c) {
    std::uint64_t lanes[kLanes];
    _mm512_storeu_si512(lanes, sums[c]);
    for (const std::uint64_t lane : lanes) cells[c] += lane;
  }
}

}  // namespace

void and_popcount_avx512(const std::uint64_t* source, const std::uint64_t* target,
                         std::size_t experts, std::size_t words, std::uint64_t* tile) {
  for (std::size_t e = 0; e < experts; ++e) {
    std::size_t f = 0;
    for (; f + 4 <= experts; f += 4) {
      add_cells(source + e * words, target + f * words, words, 4, tile + e * experts + f);
    }
    if (f < experts) {
      add_cells(source + e * words, target + f * words, words, experts - f, tile + e * experts + f);
    }
  }
}

}  // namespace routestats
