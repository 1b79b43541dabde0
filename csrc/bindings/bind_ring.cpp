#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "bindings/ring_binding.hpp"
#include "capture/ring.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

// Up to this many ids, releasing and taking the GIL costs more than the copy.
constexpr std::uint64_t kReleaseGilAbove = 4096;

IdType id_type_of(const std::string& name) {
  if (name == "int32") return IdType::i32;
  if (name == "int64") return IdType::i64;
  if (name == "uint32") return IdType::u32;
  throw py::type_error("ids: expected int32, int64 or uint32, got " + name);
}

WeightType weight_type_of(const std::string& name) {
  if (name == "float32") return WeightType::f32;
  if (name == "float16") return WeightType::f16;
  if (name == "bfloat16") return WeightType::bf16;
  throw py::type_error("weights: expected float32, float16 or bfloat16, got " + name);
}

void write(CaptureRing& ring, std::uint32_t layer, const LayerRouting& routing) {
  if (routing.rows * ring.config().top_k > kReleaseGilAbove) {
    const py::gil_scoped_release release;
    ring.write_layer(layer, routing);
  } else {
    ring.write_layer(layer, routing);
  }
}

void write_array(CaptureRing& ring, std::uint32_t layer, const py::array& ids,
                 const py::array& weights) {
  const auto top_k = static_cast<py::ssize_t>(ring.config().top_k);
  check_shape("ids", ids, {kAny, top_k});
  check_shape("weights", weights, {ids.shape(0), top_k});
  for (const auto& [name, array] : {std::pair{"ids", &ids}, std::pair{"weights", &weights}}) {
    if ((array->flags() & py::array::c_style) == 0) {
      throw std::invalid_argument(std::string(name) + ": expected a C-contiguous array");
    }
  }
  write(ring, layer,
        {ids.data(), id_type_of(py::str(ids.dtype())), weights.data(),
         weight_type_of(py::str(weights.dtype())), static_cast<std::uint64_t>(ids.shape(0))});
}

py::tuple drain(CaptureRing& ring, std::uint64_t max_rows, std::uint64_t wait_rows,
                double seconds) {
  DrainedSteps drained = wait_for_steps(ring, max_rows, wait_rows, seconds);
  void* const id_bytes = drained.ids.mutable_data();
  {
    const py::gil_scoped_release release;
    ring.take(drained.steps, id_bytes, drained.weight_bits);
  }
  return py::make_tuple(drained.spans, drained.ids, drained.weights);
}

}  // namespace

void bind_ring(py::module_& module) {
  py::enum_<IdType>(module, "IdType")
      .value("int16", IdType::i16)
      .value("int32", IdType::i32)
      .value("int64", IdType::i64)
      .value("uint32", IdType::u32);
  py::enum_<WeightType>(module, "WeightType")
      .value("float32", WeightType::f32)
      .value("float16", WeightType::f16)
      .value("bfloat16", WeightType::bf16);

  py::class_<CaptureRing> ring_class(
      module, "CaptureRing",
      "Bounded buffer of complete rows between an engine and a drain thread.");
  ring_class
      .def(py::init([](std::uint32_t layers, std::uint32_t experts, std::uint32_t top_k,
                       std::uint64_t capacity, bool weights, bool block) {
             return std::make_unique<CaptureRing>(
                 RingConfig{layers, experts, top_k, capacity, weights,
                            block ? Overflow::block : Overflow::drop});
           }),
           py::kw_only(), py::arg("layers"), py::arg("experts"), py::arg("top_k"),
           py::arg("capacity"), py::arg("weights"), py::arg("block"))
      .def("begin_step", &CaptureRing::begin_step, py::arg("rows"),
           py::call_guard<py::gil_scoped_release>())
      .def("write_layer", &write_array, py::arg("layer"), py::arg("ids"), py::arg("weights"))
      .def(
          "write_layer_at",
          // Called for every layer of every step, so it takes plain integers, which convert fast.
          [](CaptureRing& ring, std::uint32_t layer, std::uintptr_t ids, IdType id_type,
             std::uintptr_t weights, WeightType weight_type, std::uint64_t rows) {
            write(ring, layer,
                  {reinterpret_cast<const void*>(ids), id_type,
                   reinterpret_cast<const void*>(weights), weight_type, rows});
          },
          py::arg("layer"), py::arg("ids"), py::arg("id_type"), py::arg("weights"),
          py::arg("weight_type"), py::arg("rows"))
      .def("commit_step", &CaptureRing::commit_step)
      .def("abandon_step", &CaptureRing::abandon_step)
      .def("drain", &drain, py::kw_only(), py::arg("max_rows"), py::arg("wait_rows"),
           py::arg("seconds"))
      .def_property_readonly("memory_bytes", &CaptureRing::memory_bytes);
  bind_ring_state(ring_class);
}

}  // namespace routestats::bindings
