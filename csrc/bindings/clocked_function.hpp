#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <unordered_map>

#include "bindings/call_clock.hpp"

namespace routestats::bindings {

// A Python callable that clocks the calls of `function` whose first argument is one of `codes`'
// objects, by their id, and passes all other calls on. In a class it becomes a method, as a
// function does. `clock` is the Python object that holds `marks`, which it keeps alive.
//
// It is written against CPython's C API, because a clock must cost less than the smallest stage
// takes: arguments go through as they came, in no tuple or dict.
pybind11::object clocked_function(CallClock& marks, pybind11::object clock,
                                  pybind11::object function,
                                  std::unordered_map<const void*, std::int32_t> codes);

}  // namespace routestats::bindings
