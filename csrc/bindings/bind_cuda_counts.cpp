#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/cuda_bindings.hpp"
#include "bindings/step_ring_binding.hpp"
#include "cuda/memory.hpp"
#include "cuda/pair_counter.hpp"
#include "cuda/path_counter.hpp"
#include "cuda/row_gather.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace routestats::bindings {
namespace {

using cuda::PairCounter;

// A stream of the current device for work in parallel to that of the engine.
class Stream {
 public:
  cudaStream_t get() const { return stream_.get(); }

 private:
  cuda::OwnedStream stream_ = cuda::new_stream();
};

cudaStream_t stream_of(const Stream* stream) { return stream == nullptr ? nullptr : stream->get(); }

using Three = std::array<std::int64_t, 3>;

IdView device_view(std::uintptr_t address, const Three& shape, const Three& strides,
                   std::uint32_t item_bytes) {
  return {reinterpret_cast<const char*>(address),
          item_bytes,
          static_cast<std::uint64_t>(shape[0]),
          static_cast<std::uint32_t>(shape[1]),
          static_cast<std::uint32_t>(shape[2]),
          strides[0],
          strides[1],
          strides[2]};
}

std::string add(PairCounter& counter, std::uintptr_t address, const Three& shape,
                const Three& strides, std::uint32_t item_bytes, bool is_signed,
                std::uint64_t first_token, const std::optional<std::string>& name) {
  const IdView view = device_view(address, shape, strides, item_bytes);
  const auto method = choice_named("method", kDeviceMethods, name);
  const py::gil_scoped_release release;
  return name_of(counter.add(view, {first_token, is_signed}, method));
}

void add_paths(cuda::PathCounter& counter, std::uintptr_t address, const Three& shape,
               const Three& strides, std::uint32_t item_bytes, bool is_signed,
               std::uint64_t first_token) {
  const IdView view = device_view(address, shape, strides, item_bytes);
  const py::gil_scoped_release release;
  counter.add(view, {first_token, is_signed});
}

// The keys as ids [distinct, layers, slots], and their counts [distinct].
py::tuple read_paths(const cuda::PathCounter& counter) {
  const PathWindow& window = counter.window();
  const auto distinct = static_cast<py::ssize_t>(counter.distinct());
  const py::ssize_t bytes = window.words() * 4;
  py::array_t<std::uint8_t> keys(std::vector<py::ssize_t>{distinct, bytes});
  py::array_t<std::uint64_t> counts(distinct);
  auto* const key_words = reinterpret_cast<std::uint32_t*>(keys.mutable_data());
  std::uint64_t* const times = counts.mutable_data();
  {
    const py::gil_scoped_release release;
    counter.read(key_words, times);
  }
  const py::ssize_t item = window.id_bytes;
  const std::vector<py::ssize_t> shape{distinct, window.layers, window.slots};
  const std::vector<py::ssize_t> strides{bytes, item * window.slots, item};
  py::array ids(item == 1 ? py::dtype("uint8") : py::dtype("uint16"), shape, strides, keys.data(),
                keys);
  return py::make_tuple(ids, counts);
}

// The view of an array, and whether its items are signed.
std::pair<IdView, bool> host_view(const py::array& experts) {
  view_of(experts);  // throws unless they are ids
  if ((experts.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument("experts: expected a C-contiguous array");
  }
  const IdView view{static_cast<const char*>(experts.data()),
                    static_cast<std::uint32_t>(experts.itemsize()),
                    static_cast<std::uint64_t>(experts.shape(0)),
                    static_cast<std::uint32_t>(experts.shape(1)),
                    static_cast<std::uint32_t>(experts.shape(2)),
                    experts.strides(0),
                    experts.strides(1),
                    experts.strides(2)};
  return {view, experts.dtype().kind() == 'i'};
}

void add_host(PairCounter& counter, const py::array& experts, std::uint64_t first_token,
              const std::optional<std::string>& name) {
  const auto [view, is_signed] = host_view(experts);
  const auto method = choice_named("method", kDeviceMethods, name);
  const py::gil_scoped_release release;
  counter.add_host(view, {first_token, is_signed}, method);
}

// Rows by their numbers, in the form that `add` takes: address, shape, strides, bytes of an item.
py::tuple gather(cuda::RowGather& gather, const CaptureTarget& ring, const RowNumbers& rows) {
  const std::vector<std::uint32_t> slots = slots_of(ring, rows);
  IdView view{};
  {
    const py::gil_scoped_release release;
    view = gather.gather(ring, slots);
  }
  return py::make_tuple(reinterpret_cast<std::uintptr_t>(view.data),
                        py::make_tuple(view.tokens, view.layers, view.slots),
                        py::make_tuple(view.token_stride, view.layer_stride, view.slot_stride),
                        view.item_bytes);
}

void add_host_paths(cuda::PathCounter& counter, const py::array& experts,
                    std::uint64_t first_token) {
  const auto [view, is_signed] = host_view(experts);
  const py::gil_scoped_release release;
  counter.add_host(view, {first_token, is_signed});
}

}  // namespace

void bind_cuda_counts(py::module_& module) {
  py::class_<Stream>(module, "Stream",
                     "A stream of the current device that does not wait for the default one.")
      .def(py::init<>());
  py::class_<PairCounter>(module, "PairCounter",
                          "Counts of experts and of pairs in the memory of the current device. "
                          "Work is on `stream`, by default the legacy default stream.")
      .def(py::init([](std::uint32_t layers, std::uint32_t experts, std::uint32_t slots,
                       const std::vector<std::pair<std::uint32_t, std::uint32_t>>& layer_pairs,
                       const Stream* stream) {
             std::vector<LayerPair> pairs;
             pairs.reserve(layer_pairs.size());
             for (const auto& [source, target] : layer_pairs) pairs.push_back({source, target});
             return std::make_unique<PairCounter>(layers, experts, slots, std::move(pairs),
                                                  stream_of(stream));
           }),
           py::kw_only(), py::arg("layers"), py::arg("experts"), py::arg("slots"),
           py::arg("layer_pairs"), py::arg("stream") = py::none(), py::keep_alive<1, 6>())
      .def("add", &add, py::arg("address"), py::arg("shape"), py::arg("strides"),
           py::arg("item_bytes"), py::arg("is_signed"), py::arg("first_token") = 0,
           py::arg("method") = py::none(),
           "Check and count a [T, L, K] array in device memory; the name of the method taken.")
      .def("add_host", &add_host, py::arg("experts").noconvert(), py::arg("first_token") = 0,
           py::arg("method") = py::none())
      .def(
          "read",
          [](const PairCounter& counter, py::array& expert, py::array& pairs) {
            const auto layers = static_cast<py::ssize_t>(counter.layers());
            const auto side = static_cast<py::ssize_t>(counter.experts());
            const auto plan = static_cast<py::ssize_t>(counter.pairs());
            const CountTables tables{output<std::uint64_t>("expert", expert, {layers, side}),
                                     output<std::uint64_t>("pairs", pairs, {plan, side, side})};
            const py::gil_scoped_release release;
            counter.read(tables);
          },
          py::arg("expert").noconvert(), py::arg("pairs").noconvert(),
          "Add the counts to tables in host memory.")
      .def("clear", &PairCounter::clear);
  using cuda::PathCounter;
  py::class_<PathCounter>(module, "PathCounter",
                          "Exact counts of paths in the memory of the current device. Work is on "
                          "`stream`, by default the legacy default stream.")
      .def(py::init([](std::uint32_t first_layer, std::uint32_t layers, std::uint32_t slots,
                       std::uint32_t experts, bool sets, std::uint64_t expected_paths,
                       const Stream* stream) {
             const std::uint32_t id_bytes = experts <= 256 ? 1 : 2;
             return std::make_unique<PathCounter>(
                 PathWindow{first_layer, layers, sets ? slots : 1, id_bytes}, experts, sets,
                 expected_paths, stream_of(stream));
           }),
           py::kw_only(), py::arg("first_layer"), py::arg("layers"), py::arg("slots"),
           py::arg("experts"), py::arg("sets"), py::arg("expected_paths"),
           py::arg("stream") = py::none(), py::keep_alive<1, 8>())
      .def("add", &add_paths, py::arg("address"), py::arg("shape"), py::arg("strides"),
           py::arg("item_bytes"), py::arg("is_signed"), py::arg("first_token") = 0,
           "Check and count a [T, L, K] array in device memory.")
      .def("add_host", &add_host_paths, py::arg("experts").noconvert(), py::arg("first_token") = 0)
      .def("read", &read_paths, "Distinct paths [n, layers, slots] and their counts [n].");
  py::class_<cuda::RowGather>(module, "RowGather",
                              "Rows of rings in the memory of the current device, side by side. "
                              "Work is on `stream`.")
      .def(py::init([](const Stream& stream) {
             return std::make_unique<cuda::RowGather>(stream.get());
           }),
           py::arg("stream"), py::keep_alive<1, 2>())
      .def("gather", &gather, py::arg("ring"), py::arg("rows"),
           "Address, shape, strides and item size of the ids [n, L, K] of rows by their numbers; "
           "they are the stream's until the next call.");
  py::list methods;
  for (const DeviceMethod method : kDeviceMethods) methods.append(name_of(method));
  module.attr("METHODS") = py::tuple(methods);
}

}  // namespace routestats::bindings
