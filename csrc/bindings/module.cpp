#include <pybind11/pybind11.h>

#include "bindings.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of routestats; use it through the Python package.";
  routestats::bindings::bind_build_info(module);
  routestats::bindings::bind_counts(module);
  routestats::bindings::bind_ngrams(module);
  routestats::bindings::bind_paths(module);
  routestats::bindings::bind_ring(module);
}
