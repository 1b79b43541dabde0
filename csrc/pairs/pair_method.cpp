#include "pairs/pair_method.hpp"

#include <algorithm>

#include "bits/layer_bits.hpp"
#include "bits/row_sums.hpp"

namespace routestats {
namespace {

// Nanoseconds of one thread per token and layer pair, preparation included, as
// bench/pair_methods.py measures and prints them. Measured on Zen 4 in a busy machine (a repetition
// differs by up to a third), GCC 12 -O3, skewed random ids, 8 layers, 32,768 tokens; three numbers
// are portable / avx2 / avx512. "all" is all 36 pairs, "adjacent" the diagonal and hop 1, 15 pairs.
//
// More layers separate lists and block_lists further. In turns with avx512 and 32,768 tokens they
// take, with all pairs, 2.7 and 3.3 (48 layers of 64 / 8), 3.6 and 7.6 (48 of 128 / 8), 12.6 and
// 32.2 (58 of 256 / 8); adjacent 14.8 and 10.2, 14.8 and 9.5, 16.2 and 13.3.
//
//      E   K              direct   bitmap               lists                 block_lists
//      8   2   all          3.0     1.5 / 0.6 / 0.5      7.4 /  3.2 /  2.5      8.4 /  4.3 /  3.6
//      8   2   adjacent     3.5     1.8 / 1.1 / 0.9     15.2 /  6.5 /  5.2     10.8 /  7.2 /  6.8
//     16   4   all          7.2     4.9 / 1.9 / 1.6     12.1 /  5.1 /  4.1     11.7 /  5.3 /  4.3
//     16   4   adjacent     9.1     6.6 / 3.5 / 3.1     30.3 / 12.9 / 10.3     17.3 /  9.4 /  8.6
//     32   4   all          7.4    15.2 / 4.3 / 3.0     11.7 /  4.8 /  3.9     11.2 /  5.1 /  4.4
//     32   4   adjacent     9.1    16.7 / 5.8 / 4.0     27.9 / 11.5 /  9.5     16.4 /  9.2 /  8.6
//     64   1   all          1.3    60.7 /12.7 / 7.0      4.0 /  2.1 /  1.7      5.7 /  3.6 /  3.0
//     64   1   adjacent     1.8    58.7 /13.9 / 8.6     10.2 /  4.9 /  4.3      8.9 /  6.2 /  5.6
//     64   6   all         15.1    61.5 /14.0 / 7.7     13.8 /  6.7 /  6.2     18.0 /  5.4 /  4.3
//     64   6   adjacent    16.1    54.3 /12.0 /17.4     45.2 / 20.1 / 14.5     20.5 /  9.1 /  8.3
//     64   8   all         21.3    43.5 /11.7 / 8.3     14.6 /  8.5 /  6.3     17.1 /  6.7 /  6.2
//     64   8   adjacent    22.0    51.1 /24.9 /10.9     46.4 / 16.4 / 10.4     36.1 / 17.5 / 14.2
//    128   1   all          1.1                          5.6 /  2.1 /  1.9      7.2 /  3.1 /  2.8
//    128   1   adjacent     1.9                          9.5 /  4.1 /  3.5      5.8 /  3.0 /  2.8
//    128   8   all         24.3                         20.6 /  7.4 /  5.9     21.3 /  8.4 /  6.3
//    128   8   adjacent    27.1                         38.0 / 14.2 / 11.6     20.5 /  9.9 /  9.1
//    160   6   all         16.4                         27.6 / 11.3 /  9.3     26.1 /  9.3 /  8.1
//    160   6   adjacent    17.8                         45.8 / 21.6 / 19.1     29.3 / 12.0 / 10.8
//    192   8   all         28.4                         32.2 / 13.3 / 11.0     33.9 / 11.5 / 10.0
//    192   8   adjacent    31.8                         58.3 / 26.7 / 22.6     36.8 / 14.1 / 12.7
//    256   1   all          2.9                         12.9 /  5.4 /  4.4     14.7 /  5.3 /  4.6
//    256   1   adjacent     2.1                         17.7 /  7.6 /  6.7     15.0 /  5.6 /  5.3
//    256   8   all         35.6                         37.9 / 13.8 / 10.1     39.0 / 13.9 / 11.6
//    256   8   adjacent    51.2                         51.6 / 20.1 / 16.7     40.2 / 15.4 / 13.4
//    384   8   all         36.2                         66.5 / 27.0 / 22.6     77.8 / 36.8 / 30.6
//    384   8   adjacent    40.1                         97.4 / 44.1 / 37.5     91.0 / 38.7 / 33.0
//    512  10   all         78.1                         92.1 / 31.9 / 25.1    109.1 / 41.8 / 33.8
//    512  10   adjacent    83.5                        104.2 / 39.5 / 32.8    111.9 / 44.6 / 36.5
//
// The rule takes the least of four sums. Each is a preparation per slot, shared by the pairs of a
// layer, and the work of a pair.
struct Speeds {
  double cell;      // of the tile of a bitmap
  double row;       // of the bits of 512 columns, in lists
  double half_row;  // of 256 columns, in lists of a block
};

Speeds speeds_of(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return {0.0014, 0.7, 0.95};
    case Isa::avx2:
      return {0.0024, 1.2, 1.1};
    case Isa::portable:
      break;
  }
  return {0.0091, 8.0, 4.0};
}

}  // namespace

const char* name_of(Method method) {
  switch (method) {
    case Method::bitmap:
      return "bitmap";
    case Method::lists:
      return "lists";
    case Method::block_lists:
      return "block_lists";
    case Method::direct:
      break;
  }
  return "direct";
}

Method choose_method(const PairShape& shape, Isa isa) {
  const auto experts = static_cast<double>(shape.experts);
  const auto slots = static_cast<double>(shape.slots);
  const double preparations =
      slots * static_cast<double>(shape.layers) / static_cast<double>(shape.pairs);
  const Speeds speeds = speeds_of(isa);

  // A bitmap computes all E^2 cells, whatever K is. Increments go with K^2, and take longer in a
  // tile that does not fit the caches.
  const double bitmap = 1.2 * preparations + speeds.cell * experts * experts;
  const double direct = 0.6 * preparations + 0.6 + (0.3 + 8e-4 * experts) * slots * slots;
  // A token sums K rows, each E / 512 of a group, and each expert and group ends a list. Rows are
  // made bit by bit where bits/bit_rows.cpp has no words for a layer; then the layers at the ends
  // of a group are read for both groups.
  const bool words_at_once = shape.experts == 64 || shape.experts == 128 || shape.experts == 256;
  const double read_twice = kRowColumns % shape.experts == 0 ? 0 : experts / kRowColumns;
  const double lists = (words_at_once ? 2.8 : 4.3 * (1 + read_twice)) * preparations + 0.4 +
                       speeds.row * slots * experts / 512 + 2e-5 * experts * experts;
  // A row has whole words of its target and no words of other layers. Each list of a block costs as
  // much as ten more rows.
  const auto words = static_cast<double>(layer_words(shape.experts));
  const double block_lists = 1.3 * preparations + 0.4 +
                             speeds.half_row * (slots + experts / 200) * words / 4 +
                             2e-5 * experts * experts;
  const double least = std::min({bitmap, direct, lists, block_lists});
  if (bitmap == least) return Method::bitmap;
  if (direct == least) return Method::direct;
  return lists == least ? Method::lists : Method::block_lists;
}

}  // namespace routestats
