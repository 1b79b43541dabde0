#pragma once

#include <pybind11/numpy.h>

#include <optional>
#include <string>
#include <vector>

#include "base/cpu.hpp"
#include "base/expert_view.hpp"

// Arguments that several nouns share.
namespace routestats::bindings {

// The argument `experts` [T, L, K], not copied. Throws TypeError for anything but integers in the
// machine's byte order, ValueError for other than three dimensions.
ExpertView view_of(const pybind11::array& experts);

// Throws ValueError, which begins with `name`, unless `array` has this shape.
void check_shape(const char* name, const pybind11::array& array,
                 const std::vector<pybind11::ssize_t>& shape);

// Throws ValueError for an instruction set that does not run here.
std::optional<Isa> isa_named(const std::optional<std::string>& name);

}  // namespace routestats::bindings
