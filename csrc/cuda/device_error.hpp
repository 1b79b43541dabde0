#pragma once

#include <stdexcept>

namespace routestats::cuda {

// The CUDA runtime failed; what() says at what, and why.
class DeviceError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace routestats::cuda
