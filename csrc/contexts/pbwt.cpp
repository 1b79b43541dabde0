#include "contexts/pbwt.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace routestats {
namespace {

// Up to this size of the alphabet a running minimum is kept for every symbol. Above it, one is kept
// only for places from which a minimum can still start.
constexpr std::size_t kMaxTrackedAlphabet = 256;

// The arrays of one step. `ends` says where the next token of each symbol goes, and is advanced.
template <class Symbol, class Length>
struct Step {
  std::span<const Symbol> symbols;
  std::span<const std::uint32_t> order;
  std::span<const Length> lengths;
  std::uint32_t* next_order;
  Length* next_lengths;
  std::uint32_t* ends;
};

// For each symbol, the least length since its last token: the layers that this token shares with
// the current one. `Width` is the alphabet, rounded up; the loop over it is a few vector
// instructions.
template <std::size_t Width, class Symbol, class Length>
void step_tracking_all(const Step<Symbol, Length>& step) {
  constexpr Length kNone = std::numeric_limits<Length>::max();
  alignas(64) std::array<Length, Width> least{};
  std::array<Length, Width> seen{};  // 1 where the symbol has had a token
  for (std::size_t i = 0; i < step.order.size(); ++i) {
    const Length length = step.lengths[i];
    for (std::size_t s = 0; s < Width; ++s) least[s] = std::min(least[s], length);
    const std::uint32_t token = step.order[i];
    const Symbol symbol = step.symbols[token];
    const std::uint32_t place = step.ends[symbol]++;
    step.next_order[place] = token;
    // One layer more than before. For the first token of the symbol `least` is 0, and so is this.
    step.next_lengths[place] = static_cast<Length>(least[symbol] + seen[symbol]);
    seen[symbol] = 1;
    least[symbol] = kNone;
  }
}

#if defined(__GNUC__)
// The same for lengths of one byte, with the minima in registers. In memory every token would
// stall: it would write one byte of them and read all of them back right after.
template <std::size_t Width, class Symbol>
void step_in_registers(const Step<Symbol, std::uint8_t>& step) {
  using Bytes [[gnu::vector_size(16)]] = std::uint8_t;
  constexpr std::size_t kVectors = Width / 16;
  struct alignas(16) Row {
    std::array<std::uint8_t, Width> bytes;
  };
  std::array<Row, Width> only{};  // by symbol: 255 there, 0 elsewhere
  for (std::size_t s = 0; s < Width; ++s) only[s].bytes[s] = 255;
  std::array<std::uint8_t, Width> seen{};
  Bytes least[kVectors] = {};
  Row stored{};
  for (std::size_t i = 0; i < step.order.size(); ++i) {
    const Bytes length = Bytes{} + step.lengths[i];
    for (Bytes& v : least) v = v < length ? v : length;
    std::memcpy(&stored, least, sizeof stored);
    const std::uint32_t token = step.order[i];
    const Symbol symbol = step.symbols[token];
    const std::uint32_t place = step.ends[symbol]++;
    step.next_order[place] = token;
    step.next_lengths[place] = static_cast<std::uint8_t>(stored.bytes[symbol] + seen[symbol]);
    seen[symbol] = 1;
    Bytes mask[kVectors];
    std::memcpy(mask, &only[symbol], sizeof mask);
    for (std::size_t v = 0; v < kVectors; ++v) least[v] |= mask[v];
  }
}
#endif

// Calls the version with the smallest width that holds the alphabet.
template <class Symbol, class Length>
void step_of_few(const Step<Symbol, Length>& step, std::size_t alphabet) {
#if defined(__GNUC__)
  if constexpr (sizeof(Length) == 1) {
    if (alphabet <= 16) return step_in_registers<16>(step);
    if (alphabet <= 64) return step_in_registers<64>(step);
    if (alphabet <= 128) return step_in_registers<128>(step);
    return step_in_registers<256>(step);
  }
#endif
  if (alphabet <= 16) return step_tracking_all<16>(step);
  if (alphabet <= 64) return step_tracking_all<64>(step);
  if (alphabet <= 128) return step_tracking_all<128>(step);
  return step_tracking_all<256>(step);
}

// The places from which a minimum up to here can start. Their lengths rise from bottom to top, so
// there are never more of them than steps, whatever the alphabet. The least length since a place is
// the length of the lowest entry behind it.
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
  if (alphabet > kMaxTrackedAlphabet) {
    step_with_stack(step, places_, alphabet);
  } else {
    step_of_few(step, alphabet);
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
