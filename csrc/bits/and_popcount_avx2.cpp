// Compiled with -mavx2: nothing here may be inlined elsewhere or come from a shared template.
#include <immintrin.h>

#include "bits/and_popcount.hpp"
#include "bits/harley_seal.hpp"

namespace routestats {
namespace {

struct Avx2Ops {
  using Vector = __m256i;
  static constexpr std::size_t words = 4;

  static Vector load(const std::uint64_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  // Per 64-bit lane: look both nibbles of each byte up, then add the eight bytes.
  static Vector popcount(Vector v) {
    const Vector bits_of_nibble = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                                   0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const Vector nibble = _mm256_set1_epi8(0x0f);
    const Vector low = _mm256_shuffle_epi8(bits_of_nibble, _mm256_and_si256(v, nibble));
    const Vector high =
        _mm256_shuffle_epi8(bits_of_nibble, _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble));
    return _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256());
  }
  static std::uint64_t sum(Vector v) {
    return static_cast<std::uint64_t>(_mm256_extract_epi64(v, 0) + _mm256_extract_epi64(v, 1) +
                                      _mm256_extract_epi64(v, 2) + _mm256_extract_epi64(v, 3));
  }
};

}  // namespace

void and_popcount_avx2(const std::uint64_t* source, const std::uint64_t* target,
                       std::size_t experts, std::size_t words, std::uint64_t* tile) {
  HarleySeal<Avx2Ops>::add_tile(source, target, experts, words, tile);
}

}  // namespace routestats
