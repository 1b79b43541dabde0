#include <immintrin.h>

#include "prediction/rank_tokens.hpp"

namespace routestats {
namespace {

struct Avx2Ops {
  using Vector = __m256d;
  static constexpr std::size_t lanes = 4;
  static Vector load(const double* from) { return _mm256_loadu_pd(from); }
  static void store(double* to, Vector v) { _mm256_storeu_pd(to, v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
  static Vector broadcast(double value) { return _mm256_set1_pd(value); }
  static std::uint32_t count_greater(Vector a, Vector b) {
    const int mask = _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ));
    return static_cast<std::uint32_t>(__builtin_popcount(static_cast<unsigned>(mask)));
  }
};

}  // namespace

void rank_tokens_avx2(const RankRun& run, std::uint32_t* ranks) {
  TokenRanker<Avx2Ops>::run(run, ranks);
}

}  // namespace routestats
