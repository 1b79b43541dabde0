#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "routestats/pair_counts.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

using Table = py::array_t<std::uint64_t, py::array::c_style>;

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

void check_shape(const char* name, const Table& table, const std::vector<py::ssize_t>& shape) {
  if (std::vector(table.shape(), table.shape() + table.ndim()) != shape) {
    throw py::value_error(std::string(name) + ": unexpected shape");
  }
}

std::optional<Method> method_named(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  if (*name == "bitmap") return Method::bitmap;
  if (*name == "direct") return Method::direct;
  throw py::value_error("method: expected bitmap or direct, got " + *name);
}

std::optional<Isa> isa_named(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  for (const Isa isa : available_isas()) {
    if (*name == name_of(isa)) return isa;
  }
  throw py::value_error("isa: " + *name + " does not run here");
}

void count(const py::array& experts, std::size_t num_experts, std::size_t counted_slots,
           const std::vector<std::pair<std::uint32_t, std::uint32_t>>& layer_pairs, Table& expert,
           Table& pairs, unsigned threads, std::uint64_t first_token,
           const std::optional<std::string>& method, const std::optional<std::string>& isa,
           std::size_t block_tokens) {
  const ExpertView view = view_of(experts);
  const auto side = static_cast<py::ssize_t>(num_experts);
  check_shape("expert", expert, {experts.shape(1), side});
  check_shape("pairs", pairs, {static_cast<py::ssize_t>(layer_pairs.size()), side, side});
  std::vector<LayerPair> plan;
  plan.reserve(layer_pairs.size());
  for (const auto& [source, target] : layer_pairs) plan.push_back({source, target});
  const CountTables tables{expert.mutable_data(), pairs.mutable_data()};
  const CountOptions options{threads,        counted_slots, first_token, method_named(method),
                             isa_named(isa), block_tokens};
  const py::gil_scoped_release release;
  count_pairs(view, num_experts, plan, tables, options);
}

}  // namespace

void bind_counts(py::module_& module) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const ExpertOutOfRange& error) {
      const auto type = py::module_::import("routestats.errors").attr("InvalidValueError");
      PyErr_SetString(type.ptr(), error.what());
    }
  });
  // noconvert: a converted table would be a copy, and the counts would be lost with it.
  module.def("count_pairs", &count, py::arg("experts").noconvert(), py::kw_only(),
             py::arg("num_experts"), py::arg("counted_slots"), py::arg("layer_pairs"),
             py::arg("expert").noconvert(), py::arg("pairs").noconvert(), py::arg("threads"),
             py::arg("first_token") = 0, py::arg("method") = py::none(),
             py::arg("isa") = py::none(), py::arg("block_tokens") = 0,
             "Add the counts of a [T, L, K] integer array to `expert` and `pairs`, in place.");
}

}  // namespace routestats::bindings
