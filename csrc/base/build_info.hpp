#pragma once

namespace routestats {

struct BuildInfo {
  const char* version;
  const char* compiler;
  bool cuda;                // whether the module _cuda was built, too
  const char* cuda_reason;  // why not; empty if it was
};

BuildInfo build_info();

}  // namespace routestats
