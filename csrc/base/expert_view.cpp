#include "base/expert_view.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <string>

#include "base/workers.hpp"

namespace routestats {
namespace {

constexpr std::size_t kSliceTokens = 8192;

// Whether the ids of each token lie side by side, as in a C-contiguous array.
bool rows_are_dense(const ExpertView& view) {
  const auto item = static_cast<std::ptrdiff_t>(view.item_bytes);
  return view.slot_stride == item &&
         view.layer_stride == item * static_cast<std::ptrdiff_t>(view.slots);
}

template <class Id>
Id largest_id(const ExpertView& view) {
  Id largest = 0;
  if (rows_are_dense(view)) {
    std::size_t width = view.layers * view.slots;
    std::size_t rows = view.tokens;
    if (view.token_stride == static_cast<std::ptrdiff_t>(width * sizeof(Id))) {
      // All ids side by side: one vector of maxima is reduced at the end, not one for each token.
      width *= rows;
      rows = 1;
    }
    for (std::size_t t = 0; t < rows; ++t) {
      const std::byte* row = view.data + static_cast<std::ptrdiff_t>(t) * view.token_stride;
      for (std::size_t i = 0; i < width; ++i) {
        Id id;
        std::memcpy(&id, row + i * sizeof id, sizeof id);
        largest = std::max(largest, id);
      }
    }
    return largest;
  }
  for (std::size_t t = 0; t < view.tokens; ++t) {
    for (std::size_t l = 0; l < view.layers; ++l) {
      for (std::size_t k = 0; k < view.slots; ++k) {
        largest = std::max(largest, load_id<Id>(view, t, l, k));
      }
    }
  }
  return largest;
}

// The first value, read as unsigned, that is no expert. Negative ids fill the upper half of their
// type, and the half may begin below the number of experts.
template <class Id>
std::uint64_t id_limit(const ExpertView& view, std::size_t experts) {
  constexpr std::uint64_t least_negative = std::uint64_t{1} << (8 * sizeof(Id) - 1);
  return view.is_signed ? std::min<std::uint64_t>(experts, least_negative) : experts;
}

template <class Id>
std::string as_written(Id id, bool is_signed) {
  return is_signed
             ? std::to_string(static_cast<std::int64_t>(static_cast<std::make_signed_t<Id>>(id)))
             : std::to_string(std::uint64_t{id});
}

template <class Id>
[[noreturn]] void report_first(const ExpertView& view, std::size_t experts,
                               std::uint64_t first_token) {
  for (std::size_t t = 0; t < view.tokens; ++t) {
    for (std::size_t l = 0; l < view.layers; ++l) {
      for (std::size_t k = 0; k < view.slots; ++k) {
        const Id id = load_id<Id>(view, t, l, k);
        if (id < id_limit<Id>(view, experts)) continue;
        throw ExpertOutOfRange("experts[" + std::to_string(first_token + t) + ", " +
                               std::to_string(l) + ", " + std::to_string(k) +
                               "] = " + as_written(id, view.is_signed) + ", but num_experts is " +
                               std::to_string(experts));
      }
    }
  }
  throw std::logic_error("experts changed while they were checked");
}

}  // namespace

ExpertView ExpertView::tokens_from(std::size_t first, std::size_t count) const {
  ExpertView part = *this;
  if (row_order != nullptr) {
    part.row_order += first;
  } else {
    part.data += static_cast<std::ptrdiff_t>(first) * token_stride;
  }
  part.tokens = count;
  return part;
}

ExpertView ExpertView::layers_from(std::size_t first, std::size_t count) const {
  ExpertView part = *this;
  part.data += static_cast<std::ptrdiff_t>(first) * layer_stride;
  if (row_order != nullptr) part.row_order += first * order_stride;
  part.layers = count;
  return part;
}

ExpertView ExpertView::first_slots(std::size_t count) const {
  ExpertView part = *this;
  part.slots = count;
  return part;
}

ExpertView reordered(const ExpertView& view, const RowOrder& order) {
  for (std::size_t i = 0; i < view.layers * order.tokens; ++i) {
    if (order.rows[i] < view.tokens) continue;
    throw RowOutOfRange("row_order[" + std::to_string(i / order.tokens) + ", " +
                        std::to_string(i % order.tokens) + "] = " + std::to_string(order.rows[i]) +
                        ", but there are " + std::to_string(view.tokens) + " rows");
  }
  ExpertView ordered = view;
  ordered.row_order = order.rows;
  ordered.order_stride = order.tokens;
  ordered.tokens = order.tokens;
  return ordered;
}

void check_num_experts(std::size_t experts) {
  if (experts >= 1 && experts <= kMaxExperts) return;
  throw std::invalid_argument("num_experts: expected 1 to 65536, got " + std::to_string(experts));
}

bool experts_below(const ExpertView& view, std::size_t experts) {
  bool below = true;
  with_id_type(view, [&]<class Id>(Id) {
    const std::uint64_t limit = id_limit<Id>(view, experts);
    if (limit > std::numeric_limits<Id>::max()) return;  // every value is an expert
    below = view.tokens == 0 || view.layers == 0 || view.slots == 0 || largest_id<Id>(view) < limit;
  });
  return below;
}

void check_experts(const ExpertView& view, std::size_t experts, std::uint64_t first_token,
                   unsigned threads) {
  with_id_type(view, [&]<class Id>(Id) {
    const std::uint64_t limit = id_limit<Id>(view, experts);
    if (limit > std::numeric_limits<Id>::max()) return;  // every value is an expert
    std::atomic<bool> found{false};
    const std::size_t slices = (view.tokens + kSliceTokens - 1) / kSliceTokens;
    run_workers(slices, threads, [&](ItemQueue& queue) {
      while (const auto slice = queue.next()) {
        const std::size_t first = *slice * kSliceTokens;
        const std::size_t count = std::min(kSliceTokens, view.tokens - first);
        if (largest_id<Id>(view.tokens_from(first, count)) >= limit) found = true;
      }
    });
    if (found) report_first<Id>(view, experts, first_token);
  });
}

std::optional<RepeatedExpert> first_repeated(const ExpertView& view) {
  std::optional<RepeatedExpert> found;
  with_id_type(view, [&]<class Id>(Id) {
    for (std::size_t t = 0; t < view.tokens; ++t) {
      for (std::size_t l = 0; l < view.layers; ++l) {
        for (std::size_t k = 1; k < view.slots; ++k) {
          const Id id = load_id<Id>(view, t, l, k);
          for (std::size_t j = 0; j < k; ++j) {
            if (load_id<Id>(view, t, l, j) != id) continue;
            found = RepeatedExpert{t, l, k, j, std::uint64_t{id}};
            return;
          }
        }
      }
    }
  });
  return found;
}

}  // namespace routestats
