#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/cpu.hpp"
#include "base/expert_view.hpp"

// Arguments that several nouns share.
namespace routestats::bindings {

using Shape = std::vector<pybind11::ssize_t>;
// An extent of any size.
inline constexpr pybind11::ssize_t kAny = -1;

// The argument `experts` [T, L, K], not copied. Throws a type error unless it holds integers in the
// byte order of the machine, std::invalid_argument unless it has three dimensions.
ExpertView view_of(const pybind11::array& experts);

// The extent of `items` items. Throws std::invalid_argument, which begins with `name`, for more
// than an array can hold: a mere cast would make another extent of them, such as kAny.
pybind11::ssize_t extent_of(const char* name, std::uint64_t items);

// Throws std::invalid_argument, which begins with `name`, unless `array` has this shape.
void check_shape(const char* name, const pybind11::array& array, const Shape& shape);

enum class Access { read, write };

// Throws unless `array` holds `shape` items of `dtype` without gaps: a type error for other items,
// std::invalid_argument for another shape or gaps. If it will be written, the items must also be
// aligned and the memory writable.
void check_array(const char* name, const pybind11::array& array, const pybind11::dtype& dtype,
                 const Shape& shape, Access access);

// The items of an array that a function reads, and of one that it writes. Functions take both as a
// plain py::array: pybind11 would copy an array of another kind, and results in a copy are lost.
template <class Item>
const Item* input(const char* name, const pybind11::array& array, const Shape& shape) {
  check_array(name, array, pybind11::dtype::of<Item>(), shape, Access::read);
  return static_cast<const Item*>(array.data());
}
template <class Item>
Item* output(const char* name, pybind11::array& array, const Shape& shape) {
  check_array(name, array, pybind11::dtype::of<Item>(), shape, Access::write);
  return static_cast<Item*>(array.mutable_data());
}

// The items of an array of one dimension that a function reads.
template <class Item>
std::span<const Item> input_row(const char* name, const pybind11::array& array) {
  return {input<Item>(name, array, {kAny}), static_cast<std::size_t>(array.size())};
}

// Throws std::invalid_argument for an instruction set that does not run here.
std::optional<Isa> isa_named(const std::optional<std::string>& name);

// The one of `choices` whose name_of is `name`. Throws std::invalid_argument for other names.
template <class Choice, std::size_t Count>
std::optional<Choice> choice_named(const char* argument, const Choice (&choices)[Count],
                                   const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  std::string names;
  for (const Choice choice : choices) {
    if (*name == name_of(choice)) return choice;
    if (!names.empty()) names += ", ";
    names += name_of(choice);
  }
  throw std::invalid_argument(std::string(argument) + ": expected one of " + names + ", got " +
                              *name);
}

}  // namespace routestats::bindings
