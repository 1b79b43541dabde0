#include "routestats/pair_method.hpp"

namespace routestats {
namespace {

// Nanoseconds of one thread per token and layer pair, without the preparation, which costs both
// about the same. Measured on Zen 4, GCC 12 -O3, skewed random ids, 8 layers, 65,536 tokens:
//
//      E   K   direct   bitmap: portable    avx2   avx512
//      8   1     0.62               0.58    0.15     0.09
//      8   2     1.50               0.59    0.15     0.09
//     16   1     0.61               2.33    0.62     0.37
//     16   2     1.40               2.32    0.59     0.27
//     32   4     4.11               9.29    2.52     1.51
//     64   6     8.73              37.2     9.97     5.96
//     64   8    16.2               37.2     9.99     5.97
//    128   8    19.6              150.     40.7     23.8
//
// A bitmap computes all E^2 cells, whatever K is; increments go with K^2, whatever E is.
double bitmap_cost(std::size_t experts, Isa isa) {
  const double cells = static_cast<double>(experts) * static_cast<double>(experts);
  switch (isa) {
    case Isa::avx512:
      return 0.0014 * cells;
    case Isa::avx2:
      return 0.0024 * cells;
    case Isa::portable:
      return 0.0091 * cells;
  }
  return 0.0091 * cells;
}

double direct_cost(std::size_t slots) {
  return 0.35 + 0.25 * static_cast<double>(slots) * static_cast<double>(slots);
}

}  // namespace

Method choose_method(std::size_t experts, std::size_t slots, Isa isa) {
  return bitmap_cost(experts, isa) <= direct_cost(slots) ? Method::bitmap : Method::direct;
}

}  // namespace routestats
