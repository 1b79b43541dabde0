#include "routestats/pair_method.hpp"

namespace routestats {
namespace {

// Nanoseconds of one thread per token and layer pair, preparation included. Measured on Zen 4 with
// a busy neighbour, GCC 12 -O3, skewed random ids, 8 layers, 32,768 tokens; three numbers are
// portable / avx2 / avx512. "all" is all 36 pairs, "adjacent" the diagonal and hop 1, 15 pairs.
// Lists have become faster since: with a machine to itself, 48 layers of 128 / 8 take 4.1 / 3.0
// (all) and 15.6 / 13.2 (adjacent), 58 of 256 / 8 take 20.1 / 16.6 (adjacent), avx2 / avx512. `row`
// is fitted to these.
//
//      E   K              direct   bitmap               lists
//      8   2   all          2.2     1.3 / 0.8 / 1.0      4.7 /  2.3 /  1.9
//      8   2   adjacent     3.1     2.0 / 1.6 / 1.5     11.2 /  5.4 /  4.7
//     16   4   all          5.4     3.4 / 1.5 / 1.3      9.6 /  4.6 /  4.0
//     32   4   all          5.3    10.4 / 3.3 / 2.1      8.9 /  4.1 /  3.6
//     64   1   all          1.1    40.2 /10.0 / 5.5      3.2 /  1.6 /  1.4
//     64   6   all         10.9    40.9 /10.8 / 6.3     12.0 /  5.6 /  4.7
//     64   8   all         19.2    42.4 /12.1 / 7.6     16.9 /  6.9 /  5.8
//     64   8   adjacent    22.0    42.6 /13.8 / 9.3     37.6 / 16.4 / 13.9
//    128   1   all          1.9                          8.7 /  3.9 /  3.4
//    128   8   all         23.6                         21.6 /  8.6 /  6.9
//    128   8   adjacent    26.5                         40.7 / 17.4 / 14.6
//    256   1   all          1.9                         12.6 /  5.3 /  4.3
//    256   8   all         32.0                         39.0 / 14.0 / 11.2
//    256   8   adjacent    34.7                         55.4 / 23.4 / 19.7
//    512  10   all         77.7                        103.8 / 38.0 / 30.6
//
// The rule is the least of three sums, each a preparation per slot, shared by the pairs of a layer,
// and the work of a pair.
struct Speeds {
  double cell;  // of a bitmap's tile
  double row;   // of the bits of 512 columns
};

Speeds speeds_of(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return {0.0014, 0.7};
    case Isa::avx2:
      return {0.0024, 1.2};
    case Isa::portable:
      break;
  }
  return {0.0091, 8.0};
}

}  // namespace

Method choose_method(const PairShape& shape, Isa isa) {
  const auto experts = static_cast<double>(shape.experts);
  const auto slots = static_cast<double>(shape.slots);
  const double preparations =
      slots * static_cast<double>(shape.layers) / static_cast<double>(shape.pairs);
  const Speeds speeds = speeds_of(isa);

  // A bitmap computes all E^2 cells, whatever K is; increments go with K^2, whatever E is.
  const double bitmap = 1.2 * preparations + speeds.cell * experts * experts;
  const double direct = 0.6 * preparations + 0.6 + 0.33 * slots * slots;
  // K rows per token, each E / 512 of a group; and the ends of a list per expert and group.
  const double lists =
      2.8 * preparations + 0.4 + speeds.row * slots * experts / 512 + 2e-5 * experts * experts;
  if (bitmap <= direct && bitmap <= lists) return Method::bitmap;
  return lists <= direct ? Method::lists : Method::direct;
}

}  // namespace routestats
