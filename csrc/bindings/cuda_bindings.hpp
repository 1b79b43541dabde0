#pragma once

#include <pybind11/pybind11.h>

// Registrations of the module _cuda.
namespace routestats::bindings {

void bind_cuda_capture(pybind11::module_& module);
void bind_cuda_counts(pybind11::module_& module);

}  // namespace routestats::bindings
