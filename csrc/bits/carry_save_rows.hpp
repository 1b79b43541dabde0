#pragma once

#include <cstddef>
#include <cstdint>

#include "bits/row_sums.hpp"

// Sums rows of bits into bit-sliced counters by a tree of carry-save adders. 16 rows cost 15
// adders, so two operations per row advance 256 or 512 counters. Source: Mula, Kurz, Lemire,
// "Faster Population Counts Using AVX2 Instructions", 2018; summing by position: Klarqvist, Mula,
// Lemire, "Efficient Computation of Positional Population Counts Using SIMD Instructions", 2019.
//
// `Ops` names the vector: Ops::Vector, Ops::words per vector, load(), store(), zero(), and the two
// outputs of a full adder, parity() and majority(). This header is compiled for several instruction
// sets, so it uses nothing that the linker could share between them.
namespace routestats {

template <class Ops, std::size_t RowWords>
struct CarrySaveRows {
  using Vector = typename Ops::Vector;

  static constexpr std::size_t kMostHeld = kMostPlanes - kFewestPlanes;

  // low, a, b: three bits of weight 1 per position -> one of weight 2 (returned), one of 1 (low).
  static inline Vector carry_save(Vector& low, Vector a, Vector b) {
    const Vector carry = Ops::majority(low, a, b);
    low = Ops::parity(low, a, b);
    return carry;
  }
  static inline Vector carry_into(std::uint64_t* plane, Vector a, Vector b) {
    Vector low = Ops::load(plane);
    const Vector carry = carry_save(low, a, b);
    Ops::store(plane, low);
    return carry;
  }

  // Works on one vector of columns, which begins at `words` and `planes`.
  static inline void add_columns(const std::uint64_t* words, const std::uint16_t* entries,
                                 std::size_t entry_count, std::uint64_t* planes,
                                 std::size_t plane_count) {
    const auto plane = [&](std::size_t j) { return planes + j * RowWords; };
    Vector ones = Ops::load(plane(0));
    Vector twos = Ops::load(plane(1));
    Vector fours = Ops::load(plane(2));
    Vector eights = Ops::load(plane(3));
    const auto row = [&](std::size_t i) { return Ops::load(words + entries[i]); };
    const auto add_two = [&](std::size_t i) { return carry_save(ones, row(i), row(i + 1)); };
    const auto add_four = [&](std::size_t i) {
      const Vector first = add_two(i);
      return carry_save(twos, first, add_two(i + 2));
    };
    const auto add_eight = [&](std::size_t i) {
      const Vector first = add_four(i);
      return carry_save(fours, first, add_four(i + 4));
    };

    // Carries of weight 16 wait until there are two, like the digits of a binary number: digit j
    // holds one carry of weight 16 << j. So a carry costs one more adder on average, in a fixed
    // order.
    Vector held[kMostHeld];
    std::size_t carries = 0;
    const auto hold = [&](Vector carry) {
      std::size_t j = 0;
      for (; carries >> j & 1; ++j) {
        carry = carry_into(plane(kFewestPlanes + j), held[j], carry);
      }
      held[j] = carry;
      ++carries;
    };
    std::size_t i = 0;
    for (; i + 16 <= entry_count; i += 16) {
      const Vector first = add_eight(i);
      hold(carry_save(eights, first, add_eight(i + 8)));
    }
    if (i < entry_count) hold(carry_save(eights, add_eight(i), Ops::zero()));
    Ops::store(plane(0), ones);
    Ops::store(plane(1), twos);
    Ops::store(plane(2), fours);
    Ops::store(plane(3), eights);

    Vector carry = Ops::zero();
    for (std::size_t j = 0; kFewestPlanes + j < plane_count; ++j) {
      const Vector waiting = carries >> j & 1 ? held[j] : Ops::zero();
      carry = carry_into(plane(kFewestPlanes + j), waiting, carry);
    }
  }

  static inline void add(const std::uint64_t* words, const std::uint16_t* entries,
                         std::size_t entry_count, std::uint64_t* planes, std::size_t plane_count) {
    for (std::size_t w = 0; w < RowWords; w += Ops::words) {
      add_columns(words + w, entries, entry_count, planes + w, plane_count);
    }
  }
};

}  // namespace routestats
