#pragma once

#include <vector>

namespace routestats {

// Instruction sets that kernels are compiled for, from the plainest to the widest.
enum class Isa { portable, avx2, avx512 };

const char* name_of(Isa isa);

// The instruction sets that this build has kernels for and this machine can run, in the order of
// the enum. The first is always Isa::portable.
const std::vector<Isa>& available_isas();
Isa best_isa();

}  // namespace routestats
