#include "base/build_info.hpp"

namespace routestats {

BuildInfo build_info() {
#if defined(__clang__)
  constexpr const char* compiler = __VERSION__;  // already says "Clang"
#else
  constexpr const char* compiler = "GCC " __VERSION__;
#endif
  return {ROUTESTATS_VERSION, compiler, ROUTESTATS_HAS_CUDA != 0, ROUTESTATS_WHY_NO_CUDA};
}

}  // namespace routestats
