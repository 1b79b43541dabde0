#include "bindings/expert_argument.hpp"

#include <cstddef>

namespace py = pybind11;

namespace routestats::bindings {

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
    throw py::value_error("experts: expected 3 dimensions [T, L, K], got " +
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

void check_shape(const char* name, const py::array& array, const std::vector<py::ssize_t>& shape) {
  if (std::vector(array.shape(), array.shape() + array.ndim()) != shape) {
    throw py::value_error(std::string(name) + ": unexpected shape");
  }
}

std::optional<Isa> isa_named(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  for (const Isa isa : available_isas()) {
    if (*name == name_of(isa)) return isa;
  }
  throw py::value_error("isa: " + *name + " does not run here");
}

}  // namespace routestats::bindings
