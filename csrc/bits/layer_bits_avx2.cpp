#include "bits/layer_bits_fill.hpp"

namespace routestats {

extern const FillBitsOfIsa fill_bits_avx2{fill_bits<1>, fill_bits<2>, fill_bits<4>};

}  // namespace routestats
