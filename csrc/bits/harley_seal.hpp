#pragma once

#include <cstddef>
#include <cstdint>

// Population count of the AND of two columns by a tree of carry-save adders: sixteen vectors are
// added into bit-sliced counters, and only one vector in sixteen is popcounted. Source: Mula, Kurz,
// Lemire, "Faster Population Counts Using AVX2 Instructions", 2018.
//
// `Ops` names the vector: Ops::Vector (with & | ^ + <<), Ops::words per vector, load(), popcount()
// per lane, and sum() of the lanes. This header is compiled for several instruction sets, so it
// uses nothing that the linker could share between them.
namespace routestats {

template <class Ops>
struct HarleySeal {
  using Vector = typename Ops::Vector;

  // low, a, b: three bits of weight 1 per position -> one of weight 2 (returned), one of 1 (low).
  static inline Vector carry_save(Vector& low, Vector a, Vector b) {
    const Vector half = low ^ a;
    const Vector carry = (low & a) | (half & b);
    low = half ^ b;
    return carry;
  }

  static inline std::uint64_t count_and(const std::uint64_t* a, const std::uint64_t* b,
                                        std::size_t words) {
    Vector ones{};
    Vector twos{};
    Vector fours{};
    Vector eights{};
    Vector sixteens{};
    const auto both = [&](std::size_t i) {
      return Ops::load(a + i * Ops::words) & Ops::load(b + i * Ops::words);
    };
    const auto add_two = [&](std::size_t i) { return carry_save(ones, both(i), both(i + 1)); };
    const auto add_four = [&](std::size_t i) {
      const Vector first = add_two(i);
      return carry_save(twos, first, add_two(i + 2));
    };
    const auto add_eight = [&](std::size_t i) {
      const Vector first = add_four(i);
      return carry_save(fours, first, add_four(i + 4));
    };
    for (std::size_t i = 0; i < words / Ops::words; i += 16) {
      const Vector first = add_eight(i);
      sixteens = sixteens + Ops::popcount(carry_save(eights, first, add_eight(i + 8)));
    }
    return Ops::sum((sixteens << 4) + (Ops::popcount(eights) << 3) + (Ops::popcount(fours) << 2) +
                    (Ops::popcount(twos) << 1) + Ops::popcount(ones));
  }

  static inline void add_tile(const std::uint64_t* source, const std::uint64_t* target,
                              std::size_t experts, std::size_t words, std::uint64_t* tile) {
    for (std::size_t e = 0; e < experts; ++e) {
      for (std::size_t f = 0; f < experts; ++f) {
        tile[e * experts + f] += count_and(source + e * words, target + f * words, words);
      }
    }
  }
};

}  // namespace routestats
