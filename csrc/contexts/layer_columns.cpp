#include "contexts/layer_columns.hpp"

#include <algorithm>
#include <bit>
#include <string>

#include "base/workers.hpp"

namespace routestats {
namespace {

constexpr std::size_t kSliceTokens = 1024;  // a slice of a trace stays in the second-level cache

// Numbers keys in the order in which they first occur.
class Numbering {
 public:
  Numbering() : slots_(1024) {}

  std::uint32_t number(std::uint64_t key) {
    if (2 * used_ >= slots_.size()) grow();
    Slot& slot = find(key);
    if (slot.number_plus_one == 0) slot = {key, ++used_};
    return slot.number_plus_one - 1;
  }
  std::uint32_t used() const { return used_; }

 private:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t number_plus_one = 0;
  };

  Slot& find(std::uint64_t key) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = (key * 0x9E3779B97F4A7C15u) >> (64 - std::countr_zero(slots_.size()));
    while (slots_[at].number_plus_one != 0 && slots_[at].key != key) at = (at + 1) & mask;
    return slots_[at];
  }
  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.number_plus_one != 0) find(slot.key) = slot;
    }
  }

  std::vector<Slot> slots_;
  std::uint32_t used_ = 0;
};

// Members are packed into keys of 64 bits. If one key cannot hold all of them, the number of the
// set so far (32 bits) takes its place in the key, and the next members follow it.
template <class Id>
std::size_t number_sets(std::span<const Id> members, std::size_t slots, std::size_t experts,
                        std::vector<std::uint32_t>& codes) {
  const std::size_t width = std::bit_width(std::max<std::size_t>(experts - 1, 1));
  std::vector<std::uint32_t> sorted(slots);
  std::vector<Numbering> rounds(1 + slots / (32 / width));
  std::size_t last_round = 0;
  for (std::size_t t = 0; t < codes.size(); ++t) {
    std::copy_n(members.data() + t * slots, slots, sorted.begin());
    std::sort(sorted.begin(), sorted.end());
    std::uint64_t key = 0;
    std::size_t round = 0, bits = 0;
    for (const std::uint32_t member : sorted) {
      if (bits + width > 64) {
        key = rounds[round++].number(key);
        bits = 32;
      }
      key = key << width | member;
      bits += width;
    }
    codes[t] = rounds[round].number(key);
    last_round = round;
  }
  return rounds[last_round].used();
}

}  // namespace

namespace {

// Calls `body(first, last, zero)` for slices of the view's tokens; `zero` as of with_id_type.
template <class Body>
void for_slices(const ExpertView& view, unsigned threads, const Body& body) {
  const std::size_t slices = (view.tokens + kSliceTokens - 1) / kSliceTokens;
  run_workers(slices, threads, [&](ItemQueue& queue) {
    while (const auto slice = queue.next()) {
      const std::size_t first = *slice * kSliceTokens;
      const std::size_t last = std::min(first + kSliceTokens, view.tokens);
      with_id_type(view, [&](auto zero) { body(first, last, zero); });
    }
  });
}

}  // namespace

template <class Id>
LayerColumns<Id>::LayerColumns(const ExpertView& before, const ExpertView& after, std::size_t slots,
                               unsigned threads)
    : tokens_(before.tokens + after.tokens), slots_(slots), ids_(before.layers * tokens_ * slots) {
  const auto copy = [&](const ExpertView& view, std::size_t offset) {
    for_slices(view, threads, [&]<class Stored>(std::size_t first, std::size_t last, Stored) {
      for (std::size_t l = 0; l < view.layers; ++l) {
        Id* to = ids_.data() + (l * tokens_ + offset + first) * slots;
        for (std::size_t t = first; t < last; ++t) {
          for (std::size_t k = 0; k < slots; ++k) {
            *to++ = static_cast<Id>(load_id<Stored>(view, t, l, k));
          }
        }
      }
    });
  };
  copy(before, 0);
  copy(after, before.tokens);
}

template <class Id>
LayerGroups<Id>::LayerGroups(const ExpertView& before, const ExpertView& after, unsigned threads)
    : tokens_(before.tokens + after.tokens), ids_((before.layers + kLanes - 1) / kLanes * tokens_) {
  const auto copy = [&](const ExpertView& view, std::size_t offset) {
    for_slices(view, threads, [&]<class Stored>(std::size_t first, std::size_t last, Stored) {
      for (std::size_t l = 0; l < view.layers; ++l) {
        Lanes* to = ids_.data() + l / kLanes * tokens_ + offset;
        for (std::size_t t = first; t < last; ++t) {
          to[t][l % kLanes] = static_cast<Id>(load_id<Stored>(view, t, l, 0));
        }
      }
    });
  };
  copy(before, 0);
  copy(after, before.tokens);
}

template class LayerGroups<std::uint8_t>;
template class LayerGroups<std::uint16_t>;
template class LayerColumns<std::uint8_t>;
template class LayerColumns<std::uint16_t>;

namespace {

template <class Id>
void number_layers(const LayerColumns<Id>& members, std::size_t experts, unsigned threads,
                   std::vector<std::vector<std::uint32_t>>& codes,
                   std::vector<std::size_t>& distinct) {
  run_workers(codes.size(), threads, [&](ItemQueue& queue) {
    while (const auto layer = queue.next()) {
      const auto ids = members.layer(*layer);
      codes[*layer].resize(ids.size() / members.slots());
      distinct[*layer] = number_sets(ids, members.slots(), experts, codes[*layer]);
    }
  });
}

}  // namespace

SetColumns::SetColumns(const LayerColumns<std::uint8_t>& members, std::size_t layers,
                       std::size_t experts, unsigned threads)
    : codes_(layers), distinct_(layers) {
  number_layers(members, experts, threads, codes_, distinct_);
}

SetColumns::SetColumns(const LayerColumns<std::uint16_t>& members, std::size_t layers,
                       std::size_t experts, unsigned threads)
    : codes_(layers), distinct_(layers) {
  number_layers(members, experts, threads, codes_, distinct_);
}

void check_distinct(const ExpertView& view, const char* name, unsigned threads) {
  for_slices(view, threads, [&](std::size_t first, std::size_t last, auto) {
    const auto found = first_repeated(view.tokens_from(first, last - first));
    if (!found) return;
    throw ExpertRepeated(std::string(name) + "[" + std::to_string(first + found->token) + ", " +
                         std::to_string(found->layer) + "]: expected a set of experts, but " +
                         std::to_string(found->id) + " stands in slots " +
                         std::to_string(found->earlier_slot) + " and " +
                         std::to_string(found->slot));
  });
}

}  // namespace routestats
