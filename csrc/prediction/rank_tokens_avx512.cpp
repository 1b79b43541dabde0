#include <immintrin.h>

#include "prediction/rank_tokens.hpp"

namespace routestats {
namespace {

struct Avx512Ops {
  using Vector = __m512d;
  static constexpr std::size_t lanes = 8;
  static Vector load(const double* from) { return _mm512_loadu_pd(from); }
  static void store(double* to, Vector v) { _mm512_storeu_pd(to, v); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
  static Vector broadcast(double value) { return _mm512_set1_pd(value); }
  static std::uint32_t count_greater(Vector a, Vector b) {
    const __mmask8 mask = _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ);
    return static_cast<std::uint32_t>(__builtin_popcount(static_cast<unsigned>(mask)));
  }
};

}  // namespace

void rank_tokens_avx512(const RankRun& run, std::uint32_t* ranks) {
  TokenRanker<Avx512Ops>::run(run, ranks);
}

}  // namespace routestats
