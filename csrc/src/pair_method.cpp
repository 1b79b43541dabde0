#include "routestats/pair_method.hpp"

namespace routestats {
namespace {

// Nanoseconds of one thread per token and layer pair, measured on Zen 4 with bench/pair_counts.py:
// bitmap cost grows with E^2 (all cells are computed), direct cost with K^2 (one increment each).
constexpr double kDirectPerSlotPair = 0.6;

double bitmap_per_cell(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return 0.001;
    case Isa::avx2:
      return 0.0033;
    case Isa::portable:
      return 0.02;
  }
  return 0.02;
}

}  // namespace

Method choose_method(std::size_t experts, std::size_t slots, Isa isa) {
  const double cells = static_cast<double>(experts) * static_cast<double>(experts);
  const double slot_pairs = static_cast<double>(slots) * static_cast<double>(slots);
  return cells * bitmap_per_cell(isa) <= slot_pairs * kDirectPerSlotPair ? Method::bitmap
                                                                         : Method::direct;
}

}  // namespace routestats
