#include "bits/row_sums.hpp"

#include <algorithm>
#include <bit>

#include "bits/carry_save_rows.hpp"

namespace routestats {
namespace {

struct WordOps {
  using Vector = std::uint64_t;
  static constexpr std::size_t words = 1;
  static Vector zero() { return 0; }
  static Vector load(const std::uint64_t* from) { return *from; }
  static void store(std::uint64_t* to, Vector v) { *to = v; }
  static Vector parity(Vector a, Vector b, Vector c) { return a ^ b ^ c; }
  static Vector majority(Vector a, Vector b, Vector c) { return (a & b) | ((a ^ b) & c); }
};

// Bit i of `bits` as byte i of a word, 0 or 1.
std::uint64_t spread(std::uint64_t bits) {
  const std::uint64_t one_each = (bits * 0x0101010101010101) & 0x8040201008040201;
  return ((one_each + 0x7f7f7f7f7f7f7f7f) >> 7) & 0x0101010101010101;
}

// Eight counters at a time, as the bytes of up to three words.
template <std::size_t RowWords>
void expand(const std::uint64_t* planes, std::size_t plane_count, std::uint32_t* counts) {
  for (std::size_t c = 0; c < RowWords * 64; c += 8) {
    std::uint64_t bytes[3] = {};
    for (std::size_t j = 0; j < plane_count; ++j) {
      const std::uint64_t bits = planes[j * RowWords + c / 64] >> (c % 64) & 0xff;
      bytes[j / 8] |= spread(bits) << (j % 8);
    }
    for (std::size_t i = 0; i < 8; ++i) {
      const auto byte = [&](std::size_t b) {
        return static_cast<std::uint32_t>(bytes[b] >> (8 * i) & 0xff) << (8 * b);
      };
      counts[c + i] = byte(0) | byte(1) | byte(2);
    }
  }
}
static_assert(kMostPlanes <= 24);

template <std::size_t RowWords>
constexpr RowSums kSums{CarrySaveRows<WordOps, RowWords>::add, expand<RowWords>};

}  // namespace

const RowSumsOfIsa row_sums_portable{kSums<kRowWords>, kSums<kHalfRowWords>};

std::size_t plane_count(std::size_t rows) {
  return std::max<std::size_t>(kFewestPlanes, static_cast<std::size_t>(std::bit_width(rows)));
}

RowSums row_sums(Isa isa, std::size_t row_words) {
  const RowSumsOfIsa& sums = [&]() -> const RowSumsOfIsa& {
#if ROUTESTATS_X86_VARIANTS
    if (isa == Isa::avx512) return row_sums_avx512;
    if (isa == Isa::avx2) return row_sums_avx2;
#endif
    static_cast<void>(isa);
    return row_sums_portable;
  }();
  return row_words == kRowWords ? sums.whole : sums.half;
}

}  // namespace routestats
