#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace routestats {

// Tokens sorted by the layers of all steps so far, the latest layer first: the positional
// Burrows-Wheeler transform (Durbin, 2014, Bioinformatics 30(9)). Tokens that agree in the last n
// layers stand side by side, for every n at once. The caller chooses the layers and their
// direction.
//
// `Length` can hold the number of steps: std::uint8_t up to 255, std::uint16_t up to 65535.
template <class Length>
class Pbwt {
 public:
  // Before the first step the tokens share no layer and stand in the order of their numbers.
  explicit Pbwt(std::size_t tokens);

  // Sorts stably by one more layer. `symbols` are those of token 0, 1, ... at that layer, all below
  // `alphabet`. Time and memory go with the tokens plus the alphabet. Throws std::length_error if
  // Length cannot hold one more step.
  void step(std::span<const std::uint8_t> symbols, std::size_t alphabet);
  void step(std::span<const std::uint16_t> symbols, std::size_t alphabet);
  void step(std::span<const std::uint32_t> symbols, std::size_t alphabet);

  // The token at each place.
  std::span<const std::uint32_t> order() const { return order_; }
  // The number of latest layers in which the token at place i agrees with the token at place i - 1;
  // 0 at place 0. Places i and j share the least of lengths()[i + 1 .. j].
  std::span<const Length> lengths() const { return lengths_; }
  std::size_t steps() const { return steps_; }

  struct Arrays {
    explicit Arrays(std::size_t tokens) : order(tokens), lengths(tokens) {}
    std::vector<std::uint32_t> order;
    std::vector<Length> lengths;
  };
  // Exchanges the arrays that the next step would write for others of the same size. They are those
  // that the last step read, so a thread that still reads them can go on during the next step.
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
  std::vector<std::uint32_t> places_;  // by symbol: the place after the last one that had it
};

}  // namespace routestats
