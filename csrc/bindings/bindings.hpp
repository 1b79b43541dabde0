#pragma once

#include <pybind11/pybind11.h>

// One function per noun registers it; bind_<noun>.cpp has the function.
namespace routestats::bindings {

void bind_build_info(pybind11::module_& module);
void bind_call_clock(pybind11::module_& module);
void bind_capture_target(pybind11::module_& module);
void bind_counts(pybind11::module_& module);
void bind_groups(pybind11::module_& module);
void bind_history(pybind11::module_& module);
void bind_ngrams(pybind11::module_& module);
void bind_paths(pybind11::module_& module);
void bind_rank_hits(pybind11::module_& module);
void bind_ring(pybind11::module_& module);
void bind_row_sieve(pybind11::module_& module);
void bind_segments(pybind11::module_& module);

}  // namespace routestats::bindings
