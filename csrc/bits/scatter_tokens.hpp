#pragma once

#include <cstddef>
#include <cstdint>

namespace routestats {

// Puts the tokens of ids[tokens, slots] into the lists of the experts that they chose, each as the
// place of its row, `row_words` from one token to the next. `ends` is where each list's next entry
// goes.
void scatter_tokens(const std::uint16_t* ids, std::size_t tokens, std::size_t slots,
                    std::size_t row_words, std::uint32_t* ends, std::uint16_t* entries);

}  // namespace routestats
