#include "bindings/arguments.hpp"

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace py = pybind11;

namespace routestats::bindings {
namespace {

std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += shape[i] == kAny ? "any" : std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace

ExpertView view_of(const py::array& experts) {
  const char kind = experts.dtype().kind();
  if (kind != 'i' && kind != 'u') {
    throw py::type_error("experts: expected integers, got " +
                         std::string(py::str(experts.dtype())));
  }
  if (experts.dtype().byteorder() == (PY_LITTLE_ENDIAN ? '>' : '<')) {
    throw py::type_error("experts: expected the machine's byte order");
  }
  if (experts.ndim() != 3) {
    throw std::invalid_argument("experts: expected 3 dimensions [T, L, K], got " +
                                std::to_string(experts.ndim()));
  }
  return {static_cast<const std::byte*>(experts.data()),
          static_cast<unsigned>(experts.itemsize()),
          kind == 'i',
          static_cast<std::size_t>(experts.shape(0)),
          static_cast<std::size_t>(experts.shape(1)),
          static_cast<std::size_t>(experts.shape(2)),
          experts.strides(0),
          experts.strides(1),
          experts.strides(2)};
}

py::ssize_t extent_of(const char* name, std::uint64_t items) {
  constexpr std::uint64_t most = std::uint64_t{1} << 48;  // more bytes than a process can address
  if (items > most) {
    throw std::invalid_argument(std::string(name) + ": expected at most " + std::to_string(most) +
                                ", got " + std::to_string(items));
  }
  return static_cast<py::ssize_t>(items);
}

void check_shape(const char* name, const py::array& array, const Shape& shape) {
  const Shape got(array.shape(), array.shape() + array.ndim());
  bool same = got.size() == shape.size();
  for (std::size_t i = 0; same && i < shape.size(); ++i) {
    same = shape[i] == kAny || shape[i] == got[i];
  }
  if (!same) {
    throw std::invalid_argument(std::string(name) + ": expected shape " + text_of(shape) +
                                ", got " + text_of(got));
  }
}

void check_array(const char* name, const py::array& array, const py::dtype& dtype,
                 const Shape& shape, Access access) {
  if (!array.dtype().equal(dtype)) {
    throw py::type_error(std::string(name) + ": expected " + std::string(py::str(dtype)) +
                         ", got " + std::string(py::str(array.dtype())));
  }
  check_shape(name, array, shape);
  if ((array.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument(std::string(name) + ": expected a C-contiguous array");
  }
  if (access == Access::read) return;
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  if (address % static_cast<std::uintptr_t>(array.itemsize()) != 0) {
    throw std::invalid_argument(std::string(name) + ": expected aligned items");
  }
  if (!array.writeable()) {
    throw std::invalid_argument(std::string(name) + ": expected a writable array");
  }
}

std::optional<Isa> isa_named(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  for (const Isa isa : available_isas()) {
    if (*name == name_of(isa)) return isa;
  }
  throw std::invalid_argument("isa: " + *name + " does not run here");
}

}  // namespace routestats::bindings
