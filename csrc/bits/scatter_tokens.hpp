#pragma once

#include <cstddef>
#include <cstdint>

namespace routestats {

// Appends each token of ids[tokens, slots] to the lists of the experts that it chose, as the place
// of its row; rows lie `row_words` words apart. ends[e] is where the next entry of expert e goes,
// and is advanced.
void scatter_tokens(const std::uint16_t* ids, std::size_t tokens, std::size_t slots,
                    std::size_t row_words, std::uint32_t* ends, std::uint16_t* entries);

}  // namespace routestats
