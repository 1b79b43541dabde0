#include "base/cpu.hpp"

namespace routestats {
namespace {

std::vector<Isa> detect() {
  std::vector<Isa> found{Isa::portable};
#if ROUTESTATS_X86_VARIANTS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) found.push_back(Isa::avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vpopcntdq")) {
    found.push_back(Isa::avx512);
  }
#endif
  return found;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "unknown";
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Isa best_isa() { return available_isas().back(); }

}  // namespace routestats
