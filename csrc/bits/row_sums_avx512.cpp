// Compiled with -mavx512f -mavx512vl -mavx512vpopcntdq: nothing here may be inlined elsewhere or
// come from a shared template.
#include <immintrin.h>

#include <cstring>

#include "bits/carry_save_rows.hpp"
#include "bits/row_sums.hpp"

namespace routestats {
namespace {

// A full adder is two instructions here, and a row is one vector.
struct Avx512Ops {
  using Vector = __m512i;
  static constexpr std::size_t words = 8;
  static Vector zero() { return _mm512_setzero_si512(); }
  static Vector load(const std::uint64_t* from) { return _mm512_load_si512(from); }
  static void store(std::uint64_t* to, Vector v) { _mm512_store_si512(to, v); }
  static Vector parity(Vector a, Vector b, Vector c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
  }
  static Vector majority(Vector a, Vector b, Vector c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0xe8);
  }
};

struct Avx512HalfOps {
  using Vector = __m256i;
  static constexpr std::size_t words = 4;
  static Vector zero() { return _mm256_setzero_si256(); }
  static Vector load(const std::uint64_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(std::uint64_t* to, Vector v) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), v);
  }
  static Vector parity(Vector a, Vector b, Vector c) {
    return _mm256_ternarylogic_epi64(a, b, c, 0x96);
  }
  static Vector majority(Vector a, Vector b, Vector c) {
    return _mm256_ternarylogic_epi64(a, b, c, 0xe8);
  }
};

// 16 counters at a time: 16 bits of a plane are the mask of a masked OR.
template <std::size_t RowWords>
void expand(const std::uint64_t* planes, std::size_t plane_count, std::uint32_t* counts) {
  for (std::size_t c = 0; c < RowWords * 64; c += 16) {
    __m512i count = _mm512_setzero_si512();
    for (std::size_t j = 0; j < plane_count; ++j) {
      const auto set = static_cast<__mmask16>(planes[j * RowWords + c / 64] >> (c % 64));
      count = _mm512_mask_or_epi32(count, set, count, _mm512_set1_epi32(1 << j));
    }
    _mm512_storeu_si512(counts + c, count);
  }
}

}  // namespace

extern const RowSumsOfIsa row_sums_avx512{
    {CarrySaveRows<Avx512Ops, kRowWords>::add, expand<kRowWords>},
    {CarrySaveRows<Avx512HalfOps, kHalfRowWords>::add, expand<kHalfRowWords>}};

}  // namespace routestats
