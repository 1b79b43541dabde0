#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace routestats {

// Tokens sorted by the layers stepped through so far, the latest layer first: the positional
// Burrows-Wheeler transform (Durbin, 2014, Bioinformatics 30(9)). Tokens that agree in the last n
// layers stand side by side, for every n at once. Which layers those are, and in which direction
// they are walked, is the caller's choice.
//
// `Length` holds the number of steps: std::uint8_t for up to 255, std::uint16_t for up to 65535.
template <class Length>
class Pbwt {
 public:
  // Before the first step all tokens agree in nothing and stand in the order of their numbers.
  explicit Pbwt(std::size_t tokens);

  // Sorts, stably, by one more layer: the symbols of token 0, 1, ... at it, all below `alphabet`.
  // Costs time and memory of the order of the tokens plus the alphabet, whatever the alphabet.
  // Throws std::length_error if Length cannot hold one more step.
  void step(std::span<const std::uint8_t> symbols, std::size_t alphabet);
  void step(std::span<const std::uint16_t> symbols, std::size_t alphabet);
  void step(std::span<const std::uint32_t> symbols, std::size_t alphabet);

  // The token at each place.
  std::span<const std::uint32_t> order() const { return order_; }
  // In how many of the latest layers, without a gap, the token at place i agrees with the one at
  // place i - 1; 0 at place 0. The least of lengths()[i + 1 .. j] is what places i and j share.
  std::span<const Length> lengths() const { return lengths_; }
  std::size_t steps() const { return steps_; }

  struct Arrays {
    explicit Arrays(std::size_t tokens) : order(tokens), lengths(tokens) {}
    std::vector<std::uint32_t> order;
    std::vector<Length> lengths;
  };
  // Exchanges the arrays that the next step would write, which are those that the last one read,
  // for others of the same size: who still reads them can go on while the next step is taken.
  void exchange_spare(Arrays& arrays) {
    next_order_.swap(arrays.order);
    next_lengths_.swap(arrays.lengths);
  }

 private:
  template <class Symbol>
  void sort_by(std::span<const Symbol> symbols, std::size_t alphabet);

  std::size_t steps_ = 0;
  std::vector<std::uint32_t> order_, next_order_;
  std::vector<Length> lengths_, next_lengths_;
  std::vector<std::uint32_t> ends_;    // by symbol: where its next token goes
  std::vector<std::uint32_t> places_;  // by symbol: behind the last place it was seen at
};

}  // namespace routestats
