#include "base/layer_major.hpp"

#include <algorithm>

#include "base/workers.hpp"

namespace routestats {
namespace {

constexpr std::size_t kSliceTokens = 1024;

// FixedSlots = 0 reads the number and the stride of the slots at run time. The common numbers are
// compiled in, for slots that lie side by side.
template <class Id, std::size_t FixedSlots>
void copy_ids(const ExpertView& view, std::uint16_t* ids, std::size_t layer_items) {
  const std::size_t slots = FixedSlots != 0 ? FixedSlots : view.slots;
  const std::ptrdiff_t stride = FixedSlots != 0 ? sizeof(Id) : view.slot_stride;
  for (std::size_t t = 0; t < view.tokens; ++t) {
    std::uint16_t* out = ids + t * slots;
    __builtin_prefetch(view.row_ahead(t, 0));
    __builtin_prefetch(view.row_ahead(t, view.layers - 1));
    const std::byte* row = view.row(t, 0);
    for (std::size_t l = 0; l < view.layers; ++l, out += layer_items, row += view.layer_stride) {
      if (view.row_order != nullptr) row = view.row(t, l);
      if constexpr (FixedSlots != 0) {
        Id slot[FixedSlots];
        std::memcpy(slot, row, sizeof slot);
        for (std::size_t k = 0; k < FixedSlots; ++k) out[k] = static_cast<std::uint16_t>(slot[k]);
        continue;
      }
      for (std::size_t k = 0; k < slots; ++k) {
        Id id;
        std::memcpy(&id, row + static_cast<std::ptrdiff_t>(k) * stride, sizeof id);
        out[k] = static_cast<std::uint16_t>(id);
      }
    }
  }
}

template <class Id>
auto copier(const ExpertView& view) {
  if (view.slot_stride == sizeof(Id)) {
    if (view.slots == 1) return copy_ids<Id, 1>;
    if (view.slots == 2) return copy_ids<Id, 2>;
    if (view.slots == 4) return copy_ids<Id, 4>;
    if (view.slots == 8) return copy_ids<Id, 8>;
  }
  return copy_ids<Id, 0>;
}

}  // namespace

void copy_layer_major(const ExpertView& view, std::uint16_t* ids, std::size_t layer_items) {
  with_id_type(view, [&]<class Id>(Id) { copier<Id>(view)(view, ids, layer_items); });
}

LayerMajorIds::LayerMajorIds(std::size_t layers, std::size_t slots, std::size_t max_tokens)
    : slots_(slots), ids_(layers * slots * max_tokens) {}

void LayerMajorIds::fill(const ExpertView& view, std::span<const TokenRange> ranges,
                         unsigned threads) {
  struct Slice {
    std::size_t first;  // in the view
    std::size_t count;
    std::size_t place;  // in the block
  };
  std::vector<Slice> slices;
  tokens_ = 0;
  for (const TokenRange& range : ranges) {
    for (std::size_t done = 0; done < range.count; done += kSliceTokens) {
      const std::size_t count = std::min(kSliceTokens, range.count - done);
      slices.push_back({range.first + done, count, tokens_});
      tokens_ += count;
    }
  }
  run_workers(slices.size(), threads, [&](ItemQueue& queue) {
    while (const auto item = queue.next()) {
      const Slice& slice = slices[*item];
      copy_layer_major(view.tokens_from(slice.first, slice.count),
                       ids_.data() + slice.place * slots_, tokens_ * slots_);
    }
  });
}

}  // namespace routestats
