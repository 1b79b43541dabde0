#pragma once

// The only place where C++ exceptions become Python's.
namespace routestats::bindings {

// Makes every exception of this module's functions an error of routestats.errors, except errors of
// Python code that they called. Call it once in each module, before any other registration. It
// holds for this module alone: pybind11's other translators are shared with every extension module
// of the process.
void register_errors();

}  // namespace routestats::bindings
