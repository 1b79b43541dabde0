#include "routestats/pbwt.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace routestats {
namespace {

// Up to here a running minimum is kept for every symbol of the alphabet; above, one for those
// places only that a minimum can still start from.
constexpr std::size_t kMaxTrackedAlphabet = 256;

// The arrays of one step. `ends` holds where the first token of each symbol goes, and is advanced.
template <class Symbol, class Length>
struct Step {
  std::span<const Symbol> symbols;
  std::span<const std::uint32_t> order;
  std::span<const Length> lengths;
  std::uint32_t* next_order;
  Length* next_lengths;
  std::uint32_t* ends;
};

// For each symbol, the least length since its last token: what that token shares with this one.
// `Width` is the alphabet rounded up; the loop over it is a handful of vector instructions.
template <std::size_t Width, class Symbol, class Length>
void step_tracking_all(const Step<Symbol, Length>& step) {
  constexpr Length kNone = std::numeric_limits<Length>::max();
  alignas(64) std::array<Length, Width> least;
  least.fill(0);  // the first token of a symbol shares nothing with its predecessor
  std::array<Length, Width> plus_one{};
  for (std::size_t i = 0; i < step.order.size(); ++i) {
    const Length length = step.lengths[i];
    for (std::size_t s = 0; s < Width; ++s) least[s] = std::min(least[s], length);
    const std::uint32_t token = step.order[i];
    const Symbol symbol = step.symbols[token];
    const std::uint32_t place = step.ends[symbol]++;
    step.next_order[place] = token;
    // 0 for the first token of the symbol, which shares nothing, else one layer more than before.
    step.next_lengths[place] = static_cast<Length>(least[symbol] + plus_one[symbol]);
    plus_one[symbol] = 1;
    least[symbol] = kNone;
  }
}

// The places from which a minimum up to here can start: their lengths rise from bottom to top, so
// there are never more than steps, however large the alphabet. The least length since a place is
// that of the lowest entry behind it.
template <class Symbol, class Length>
void step_with_stack(const Step<Symbol, Length>& step, std::vector<std::uint32_t>& seen,
                     std::size_t alphabet) {
  struct Entry {
    std::uint32_t place;
    Length length;
  };
  std::vector<Entry> stack;
  seen.assign(alphabet, 0);
  for (std::uint32_t i = 0; i < step.order.size(); ++i) {
    const Length length = step.lengths[i];
    while (!stack.empty() && stack.back().length >= length) stack.pop_back();
    stack.push_back({i, length});
    const std::uint32_t token = step.order[i];
    const Symbol symbol = step.symbols[token];
    const std::uint32_t place = step.ends[symbol]++;
    step.next_order[place] = token;
    Length shared = 0;
    if (seen[symbol] != 0) {
      const auto first = std::partition_point(
          stack.begin(), stack.end(), [&](const Entry& e) { return e.place < seen[symbol]; });
      shared = static_cast<Length>(first->length + 1);
    }
    step.next_lengths[place] = shared;
    seen[symbol] = i + 1;
  }
}

}  // namespace

template <class Length>
Pbwt<Length>::Pbwt(std::size_t tokens)
    : order_(tokens), next_order_(tokens), lengths_(tokens), next_lengths_(tokens) {
  if (tokens > std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("tokens: expected fewer than 2^32");
  }
  std::iota(order_.begin(), order_.end(), 0u);
}

template <class Length>
template <class Symbol>
void Pbwt<Length>::sort_by(std::span<const Symbol> symbols, std::size_t alphabet) {
  if (symbols.size() != order_.size()) throw std::invalid_argument("symbols: one for each token");
  if (steps_ == std::numeric_limits<Length>::max()) {
    throw std::length_error("more layers than common lengths can count");
  }
  ends_.assign(alphabet + 1, 0);
  for (const Symbol symbol : symbols) ++ends_[symbol + std::size_t{1}];
  std::partial_sum(ends_.begin(), ends_.end(), ends_.begin());

  const Step<Symbol, Length> step{
      symbols, order_, lengths_, next_order_.data(), next_lengths_.data(), ends_.data()};
  if (sizeof(Symbol) > 2 || alphabet > kMaxTrackedAlphabet) {
    step_with_stack(step, places_, alphabet);
  } else if (alphabet <= 16) {
    step_tracking_all<16>(step);
  } else if (alphabet <= 64) {
    step_tracking_all<64>(step);
  } else if (alphabet <= 128) {
    step_tracking_all<128>(step);
  } else {
    step_tracking_all<256>(step);
  }
  std::swap(order_, next_order_);
  std::swap(lengths_, next_lengths_);
  ++steps_;
}

template <class Length>
void Pbwt<Length>::step(std::span<const std::uint8_t> symbols, std::size_t alphabet) {
  sort_by(symbols, alphabet);
}
template <class Length>
void Pbwt<Length>::step(std::span<const std::uint16_t> symbols, std::size_t alphabet) {
  sort_by(symbols, alphabet);
}
template <class Length>
void Pbwt<Length>::step(std::span<const std::uint32_t> symbols, std::size_t alphabet) {
  sort_by(symbols, alphabet);
}

template class Pbwt<std::uint8_t>;
template class Pbwt<std::uint16_t>;

}  // namespace routestats
