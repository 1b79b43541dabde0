#include "bits/scatter_tokens.hpp"

namespace routestats {
namespace {

// FixedSlots = 0 reads the number of slots at run time; the common numbers are compiled in.
template <std::size_t FixedSlots>
void scatter(const std::uint16_t* ids, std::size_t tokens, std::size_t run_time_slots,
             std::size_t row_words, std::uint32_t* ends, std::uint16_t* entries) {
  const std::size_t slots = FixedSlots != 0 ? FixedSlots : run_time_slots;
  for (std::size_t t = 0; t < tokens; ++t, ids += slots) {
    const auto row = static_cast<std::uint16_t>(t * row_words);
    for (std::size_t k = 0; k < slots; ++k) entries[ends[ids[k]]++] = row;
  }
}

}  // namespace

void scatter_tokens(const std::uint16_t* ids, std::size_t tokens, std::size_t slots,
                    std::size_t row_words, std::uint32_t* ends, std::uint16_t* entries) {
  switch (slots) {
    case 4:
      return scatter<4>(ids, tokens, slots, row_words, ends, entries);
    case 6:
      return scatter<6>(ids, tokens, slots, row_words, ends, entries);
    case 8:
      return scatter<8>(ids, tokens, slots, row_words, ends, entries);
    default:
      return scatter<0>(ids, tokens, slots, row_words, ends, entries);
  }
}

}  // namespace routestats
