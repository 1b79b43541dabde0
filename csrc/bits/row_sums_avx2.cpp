// Compiled with -mavx2: nothing here may be inlined elsewhere or come from a shared template.
#include <immintrin.h>

#include "bits/carry_save_rows.hpp"
#include "bits/row_sums.hpp"

namespace routestats {
namespace {

struct Avx2Ops {
  using Vector = __m256i;
  static constexpr std::size_t words = 4;
  static Vector zero() { return _mm256_setzero_si256(); }
  static Vector load(const std::uint64_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(std::uint64_t* to, Vector v) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), v);
  }
  static Vector parity(Vector a, Vector b, Vector c) { return a ^ b ^ c; }
  static Vector majority(Vector a, Vector b, Vector c) { return (a & b) | ((a ^ b) & c); }
};

// 32 counters at a time: a byte of a plane is copied to eight bytes, and each of these keeps one
// bit.
template <std::size_t RowWords>
void expand(const std::uint64_t* planes, std::size_t plane_count, std::uint32_t* counts) {
  const __m256i bit_of_byte = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
  const __m256i copies =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  for (std::size_t c = 0; c < RowWords * 64; c += 32) {
    __m256i bytes[3] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (std::size_t j = 0; j < plane_count; ++j) {
      const auto bits = static_cast<int>(planes[j * RowWords + c / 64] >> (c % 64));
      const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), copies);
      const __m256i set = _mm256_cmpeq_epi8(spread & bit_of_byte, bit_of_byte);
      bytes[j / 8] |= set & _mm256_set1_epi8(static_cast<char>(1 << (j % 8)));
    }
    alignas(32) std::uint8_t byte[3][32];
    for (std::size_t b = 0; b < 3; ++b) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(byte[b]), bytes[b]);
    }
    for (std::size_t i = 0; i < 32; i += 8) {
      const auto wide = [&](std::size_t b) {
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(byte[b] + i)));
      };
      const __m256i count =
          wide(0) | _mm256_slli_epi32(wide(1), 8) | _mm256_slli_epi32(wide(2), 16);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts + c + i), count);
    }
  }
}

template <std::size_t RowWords>
constexpr RowSums kSums{CarrySaveRows<Avx2Ops, RowWords>::add, expand<RowWords>};

}  // namespace

extern const RowSumsOfIsa row_sums_avx2{kSums<kRowWords>, kSums<kHalfRowWords>};

}  // namespace routestats
