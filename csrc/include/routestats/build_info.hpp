#pragma once

namespace routestats {

struct BuildInfo {
  const char* version;
  const char* compiler;
  bool cuda;
};

BuildInfo build_info();

}  // namespace routestats
