#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "bindings/errors.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of routestats; use it through the Python package.";
  routestats::bindings::register_errors();
  routestats::bindings::bind_build_info(module);
  routestats::bindings::bind_call_clock(module);
  routestats::bindings::bind_counts(module);
  routestats::bindings::bind_groups(module);
  routestats::bindings::bind_history(module);
  routestats::bindings::bind_ngrams(module);
  routestats::bindings::bind_paths(module);
  routestats::bindings::bind_rank_hits(module);
  routestats::bindings::bind_ring(module);
  routestats::bindings::bind_capture_target(module);  // names types of the ring
  routestats::bindings::bind_row_sieve(module);
  routestats::bindings::bind_segments(module);
}
