#include "tests/emulated_step_device.hpp"

#include <algorithm>

namespace routestats {
namespace {

struct HostAtomics {
  static void minimum(std::uint64_t* word, std::uint64_t value) { *word = std::min(*word, value); }
  static void add(std::uint64_t* word, std::uint64_t more) { *word += more; }
  static std::uint64_t swap(std::uint64_t* word, std::uint64_t expected, std::uint64_t desired) {
    const std::uint64_t before = *word;
    if (before == expected) *word = desired;
    return before;
  }
};

}  // namespace

EmulatedStepDevice::EmulatedStepDevice(const CaptureTarget& target)
    : target_(target),
      ids_(target.extents.capacity * target.extents.row_width() * target.id_bytes()),
      weights_(target.extents.capacity * target.extents.row_width()),
      tags_(target.extents.capacity * 2),
      records_(target.layout().words()) {}

void EmulatedStepDevice::reset() {
  std::fill_n(target_.control, target_.layout().words(), kNeverStamped);
  shut_step(target_);
}

void EmulatedStepDevice::begin(const CaptureStep& step, Stream) { open_step(target_, step); }

void EmulatedStepDevice::finish(const CaptureStep& step, const RowTags& tags, Stream) {
  for (std::uint32_t row = 0; row < step.rows; ++row) tag_row(target_, step, tags, row);
  shut_step(target_);
  const std::lock_guard lock(mutex_);
  waiting_[step.number] = step;
}

void EmulatedStepDevice::abandon(const CaptureStep& step, Stream) { forget_step(target_, step); }

void EmulatedStepDevice::wait(std::uint64_t number) {
  CaptureStep step;
  {
    const std::lock_guard lock(mutex_);
    step = waiting_.extract(number).mapped();
  }
  const std::uint64_t width = target_.extents.row_width();
  const std::uint64_t id_width = width * target_.id_bytes();
  const auto* ids = static_cast<const std::uint8_t*>(target_.ids);
  for (std::uint64_t row = 0; row < step.rows; ++row) {
    const std::uint64_t slot = target_.extents.slot_after(step.first_slot, row);
    std::copy_n(ids + slot * id_width, id_width, ids_.data() + slot * id_width);
    std::copy_n(target_.weights + slot * width, width, weights_.data() + slot * width);
    std::copy_n(target_.tags + 2 * slot, 2, tags_.data() + 2 * slot);
  }
  const std::uint64_t record = target_.layout().record(number);
  std::copy_n(target_.control + record, target_.layout().record_words(), records_.data() + record);
}

void emulate_capture(const CaptureTarget& target, const LayerRouting& routing,
                     std::uint32_t layer) {
  const CaptureStep step = open_step_of(target);
  stamp_layer(target, step, layer, routing.rows);
  for (std::uint32_t row = 0; row < routing.rows; ++row) {
    for (std::uint32_t slot = 0; slot < target.extents.top_k; ++slot) {
      capture_choice<HostAtomics>(target, step, routing, layer, row, slot);
    }
  }
}

void emulate_check(const CaptureTarget& target, const TwoChoices& choices, std::uint32_t layer) {
  const CaptureStep step = open_step_of(target);
  note_checked<HostAtomics>(target, step, choices.rows);
  for (std::uint32_t row = 0; row < choices.rows; ++row) {
    check_choice<HostAtomics>(target, step, choices, layer, row);
  }
}

}  // namespace routestats
