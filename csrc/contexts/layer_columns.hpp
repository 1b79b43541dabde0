#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/expert_view.hpp"

namespace routestats {

// The ids of two views, one after the other, layer by layer: [layers, tokens, slots]. The ids must
// be checked already, and `Id` must be wide enough for them.
template <class Id>
class LayerColumns {
 public:
  LayerColumns() = default;
  LayerColumns(const ExpertView& before, const ExpertView& after, std::size_t slots,
               unsigned threads);

  std::span<const Id> layer(std::size_t layer) const {
    return std::span(ids_).subspan(layer * tokens_ * slots_, tokens_ * slots_);
  }
  std::size_t slots() const { return slots_; }

 private:
  std::size_t tokens_ = 0;
  std::size_t slots_ = 0;
  std::vector<Id> ids_;
};

// First choices of kLanes layers side by side, so that one read serves all of them. For every group
// of layers [0, kLanes), [kLanes, 2 * kLanes), ... there are the tokens of two views, one after the
// other. Ids of layers that do not exist are 0.
inline constexpr std::size_t kLanes = 4;

template <class Id>
class LayerGroups {
 public:
  using Lanes = std::array<Id, kLanes>;

  LayerGroups() = default;
  LayerGroups(const ExpertView& before, const ExpertView& after, unsigned threads);

  std::span<const Lanes> group(std::size_t group) const {
    return std::span(ids_).subspan(group * tokens_, tokens_);
  }

 private:
  std::size_t tokens_ = 0;
  std::vector<Lanes> ids_;
};

// Numbers the distinct sets of experts of each layer in the order of their first occurrence. Equal
// sets have equal numbers, whatever the order of their slots.
class SetColumns {
 public:
  SetColumns() = default;
  SetColumns(const LayerColumns<std::uint8_t>& members, std::size_t layers, std::size_t experts,
             unsigned threads);
  SetColumns(const LayerColumns<std::uint16_t>& members, std::size_t layers, std::size_t experts,
             unsigned threads);

  std::span<const std::uint32_t> layer(std::size_t layer) const { return codes_[layer]; }
  std::size_t distinct(std::size_t layer) const { return distinct_[layer]; }

 private:
  std::vector<std::vector<std::uint32_t>> codes_;
  std::vector<std::size_t> distinct_;
};

// Throws ExpertRepeated unless the slots of each token and layer are distinct. The message calls
// the view `name`.
void check_distinct(const ExpertView& view, const char* name, unsigned threads);

}  // namespace routestats
