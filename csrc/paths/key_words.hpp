#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace routestats {

// Calls `body(words)` with the number of words of a key. If it is small, it is a constant for the
// compiler, so keys are compared and copied without a call or a loop; else the constant is 0.
template <class Body>
decltype(auto) with_key_words(std::size_t words, Body&& body) {
  switch (words) {
    case 1:
      return std::forward<Body>(body)(std::integral_constant<std::size_t, 1>{});
    case 2:
      return std::forward<Body>(body)(std::integral_constant<std::size_t, 2>{});
    case 4:
      return std::forward<Body>(body)(std::integral_constant<std::size_t, 4>{});
    case 6:
      return std::forward<Body>(body)(std::integral_constant<std::size_t, 6>{});
    case 8:
      return std::forward<Body>(body)(std::integral_constant<std::size_t, 8>{});
    default:
      return std::forward<Body>(body)(std::integral_constant<std::size_t, 0>{});
  }
}

}  // namespace routestats
