#pragma once

// This alone turns exceptions of C++ into errors of Python.
namespace routestats::bindings {

// Turns every exception of the functions of this module into an error of routestats.errors. Errors
// of Python code that they call stay as they are. Each module calls this once, before other
// registrations. It applies to this module alone: other translators of pybind11 are shared by all
// extension modules of the process.
void register_errors();

}  // namespace routestats::bindings
