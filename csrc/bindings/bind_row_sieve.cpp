#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/bindings.hpp"
#include "capture/row_sieve.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

template <class Item>
py::array_t<Item> array_of(const std::vector<Item>& items) {
  return py::array_t<Item>(static_cast<py::ssize_t>(items.size()), items.data());
}

// The rows of the step are those of `positions` and `token_ids` from `first` on.
std::optional<std::size_t> add(RowSieve& sieve, const py::array& requests, const py::array& counts,
                               const std::optional<py::array>& drafts, const py::array& positions,
                               const py::array& token_ids, std::size_t first) {
  const auto counted = input_row<std::int32_t>("counts", counts);
  const auto rows = std::accumulate(counted.begin(), counted.end(), std::int64_t{0});
  const auto part = [&](const char* name, const py::array& values) {
    const auto all = input_row<std::int32_t>(name, values);
    if (rows < 0 || first > all.size() || static_cast<std::size_t>(rows) > all.size() - first) {
      throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(rows) +
                                  " from " + std::to_string(first) + " on, got " +
                                  std::to_string(all.size()) + " in all");
    }
    return all.subspan(first, static_cast<std::size_t>(rows));
  };
  RequestRows step{input_row<std::int32_t>("requests", requests),
                   counted,
                   {},
                   part("positions", positions),
                   part("token_ids", token_ids)};
  if (drafts) step.drafts = input_row<std::int32_t>("drafts", *drafts);
  return sieve.add(step);
}

py::tuple take(RowSieve& sieve) {
  const RowSieve::Piece piece = sieve.take();
  py::list kept;
  for (const RowSieve::Kept& one : piece.kept) {
    kept.append(py::make_tuple(one.domain, array_of(one.rows), array_of(one.request_index),
                               array_of(one.prefill), array_of(one.requests)));
  }
  return py::make_tuple(kept, array_of(piece.waiting));
}

}  // namespace

void bind_row_sieve(py::module_& module) {
  const auto total = [](std::int64_t RowSieve::Totals::* field) {
    return [field](const RowSieve& sieve) { return sieve.totals().*field; };
  };
  py::class_<RowSieve>(module, "RowSieve", "Lets each real row of an engine's steps through, once.")
      .def(py::init<>())
      .def(
          "begin",
          [](RowSieve& sieve, std::int64_t prompt_tokens, std::int64_t last_position,
             std::vector<std::int32_t> stop_ids, std::uint32_t domain) {
            return sieve.begin({prompt_tokens, last_position, std::move(stop_ids), domain});
          },
          py::kw_only(), py::arg("prompt_tokens"), py::arg("last_position"), py::arg("stop_ids"),
          py::arg("domain"), "Number of a request that begins.")
      .def(
          "end",
          [](RowSieve& sieve, std::int32_t request, std::optional<std::int64_t> sampled)
              -> std::optional<std::pair<std::int64_t, std::int64_t>> {
            const auto reached = sieve.end(request, sampled);
            if (!reached) return std::nullopt;
            return std::pair{reached->positions, reached->cached};
          },
          py::arg("request"), py::arg("sampled"),
          "How many positions the request reached and had cached; None if it never ran.")
      .def("waits", &RowSieve::waits, py::arg("request"),
           "Whether drafts of the request wait for its next step or its end.")
      .def("add", &add, py::arg("requests"), py::arg("counts"), py::arg("drafts"),
           py::arg("positions"), py::arg("token_ids"), py::arg("first"),
           "Take in a step; index of the first request whose positions are not consecutive.")
      .def("take", &take,
           "End the piece: (domain, rows, request_index, prefill, requests) of each domain, and "
           "the rows that wait.")
      .def_property_readonly("duplicate_rows", total(&RowSieve::Totals::duplicate))
      .def_property_readonly("rejected_rows", total(&RowSieve::Totals::rejected))
      .def_property_readonly("overrun_rows", total(&RowSieve::Totals::overrun))
      .def_property_readonly("unconfirmed_rows", total(&RowSieve::Totals::unconfirmed))
      .def_property_readonly("foreign_rows", total(&RowSieve::Totals::foreign));
}

}  // namespace routestats::bindings
