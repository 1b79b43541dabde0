#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <unordered_map>

#include "bindings/call_clock.hpp"

namespace routestats::bindings {

// A Python callable that passes all calls on to `function`, and clocks those whose first argument
// is one of the objects in `codes`, by their id. In a class it becomes a method, as a function
// does. `clock` is the Python object that holds `marks`; the callable keeps it alive.
//
// It uses the C API of CPython, because a clock must cost less than the shortest stage. Arguments
// are passed on as they came, not in a tuple or dict.
pybind11::object clocked_function(CallClock& marks, pybind11::object clock,
                                  pybind11::object function,
                                  std::unordered_map<const void*, std::int32_t> codes);

}  // namespace routestats::bindings
