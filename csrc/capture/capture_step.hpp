#pragma once

#include <cstdint>

#include "base/host_device.hpp"
#include "capture/choice_check.hpp"
#include "capture/ring_index.hpp"
#include "capture/routing_input.hpp"

// The work of one thread of the capture kernels. A launch in a captured graph keeps its arguments
// for ever. So what changes from step to step (where the rows go and how many of them are real)
// lies in device memory, in control words that are changed in stream order.
namespace routestats {

// The most steps whose rows may be on their way to the host at once.
inline constexpr std::uint32_t kStepsInFlight = 256;

struct CaptureStep {
  std::uint64_t first_slot;  // of the ring
  std::uint64_t rows;        // real rows; 0: nothing is written
  std::uint64_t number;
};

// Control words: the open step, then a record for each of kStepsInFlight steps: what was found in
// it, and a stamp per layer. Steps take the records in turn, so the record of a step stays as it is
// until the host has read it, while the next steps run.
struct ControlLayout {
  std::uint32_t layers;
  std::uint32_t top_k;

  // Words of a record.
  static constexpr std::uint64_t kFault = 0;          // place of an id that names no expert
  static constexpr std::uint64_t kDifference = 1;     // place where a kernel chose otherwise
  static constexpr std::uint64_t kNearTies = 2;       // how many choices tie within rounding
  static constexpr std::uint64_t kCheckedLayers = 3;  // compared with the choice of the kernel
  static constexpr std::uint64_t kTheirs = 4;         // what the kernel chose, four ids a word

  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t stamps() const {
    return kTheirs + (std::uint64_t{top_k} + 3) / 4;
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t record_words() const { return stamps() + layers; }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t record(std::uint64_t step) const {
    return 3 + step % kStepsInFlight * record_words();
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t words() const {
    return 3 + kStepsInFlight * record_words();
  }
};

// A stamp says that the layer was routed in a step, and what was wrong.
inline constexpr std::uint64_t kNeverStamped = ~std::uint64_t{0};
inline constexpr std::uint64_t kTooFewRows = 1;
inline constexpr std::uint64_t kTwice = 2;

ROUTESTATS_HOST_DEVICE constexpr std::uint64_t stamp_of(std::uint64_t step, std::uint64_t flags) {
  return step << 2 | flags;
}
ROUTESTATS_HOST_DEVICE constexpr bool is_stamp_of(std::uint64_t stamp, std::uint64_t step) {
  return stamp >> 2 == step && stamp != kNeverStamped;
}

// The place of a fault in a step. Of the ids that name no expert the least place is kept: the first
// row of the first layer.
inline constexpr std::uint64_t kNoFault = ~std::uint64_t{0};

struct FaultPlace {
  std::uint32_t layer;
  std::uint32_t row;
  std::uint32_t slot;

  ROUTESTATS_HOST_DEVICE constexpr std::uint64_t key() const {
    return std::uint64_t{layer} << 48 | std::uint64_t{row} << 16 | slot;
  }
  static constexpr FaultPlace of(std::uint64_t key) {
    return {static_cast<std::uint32_t>(key >> 48), static_cast<std::uint32_t>(key >> 16),
            static_cast<std::uint32_t>(key & 0xffffu)};
  }
};

// Memory of the ring of one engine on its device; passed by value to every launch.
struct CaptureTarget {
  std::uint64_t* control;
  void* ids;               // [capacity, layers, top_k], uint8 up to 256 experts, else uint16
  std::uint16_t* weights;  // the same extents, float16
  std::int32_t* tags;      // [capacity, 2]: position, token id
  RingExtents extents;
  std::uint32_t experts;

  ROUTESTATS_HOST_DEVICE constexpr ControlLayout layout() const {
    return {extents.layers, extents.top_k};
  }
  ROUTESTATS_HOST_DEVICE constexpr std::uint32_t id_bytes() const { return experts <= 256 ? 1 : 2; }
};

ROUTESTATS_HOST_DEVICE inline CaptureStep open_step_of(const CaptureTarget& target) {
  return {target.control[0], target.control[1], target.control[2]};
}

ROUTESTATS_HOST_DEVICE inline std::uint64_t* record_of(const CaptureTarget& target,
                                                       const CaptureStep& step) {
  return target.control + target.layout().record(step.number);
}

// One thread opens a step. It leaves the stamps of the record: the step number of an old one tells
// it apart.
ROUTESTATS_HOST_DEVICE inline void open_step(const CaptureTarget& target, const CaptureStep& step) {
  target.control[0] = step.first_slot;
  target.control[1] = step.rows;
  target.control[2] = step.number;
  std::uint64_t* const record = record_of(target, step);
  record[ControlLayout::kFault] = kNoFault;
  record[ControlLayout::kDifference] = kNoFault;
  record[ControlLayout::kNearTies] = 0;
  record[ControlLayout::kCheckedLayers] = 0;
}

// One thread per layer and launch says that the layer was routed.
ROUTESTATS_HOST_DEVICE inline void stamp_layer(const CaptureTarget& target, const CaptureStep& step,
                                               std::uint32_t layer, std::uint64_t routed_rows) {
  if (step.rows == 0) return;
  std::uint64_t& stamp = record_of(target, step)[target.layout().stamps() + layer];
  const std::uint64_t flags =
      (routed_rows < step.rows ? kTooFewRows : 0) | (is_stamp_of(stamp, step.number) ? kTwice : 0);
  stamp = stamp_of(step.number, flags);
}

// One thread per row and slot writes its choice to its place in the canonical order. Rows from
// step.rows on are padding. `Atomics::minimum(word, value)` lowers a control word.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void capture_choice(const CaptureTarget& target,
                                                  const CaptureStep& step,
                                                  const LayerRouting& routing, std::uint32_t layer,
                                                  std::uint32_t row, std::uint32_t slot) {
  if (row >= step.rows) return;
  const std::uint32_t top_k = target.extents.top_k;
  const std::uint64_t first = std::uint64_t{row} * top_k;
  const std::int64_t id = load_id(routing, first + slot);
  if (id < 0 || id >= static_cast<std::int64_t>(target.experts)) {
    Atomics::minimum(record_of(target, step) + ControlLayout::kFault,
                     FaultPlace{layer, row, slot}.key());
    return;
  }
  const std::uint32_t rank = rank_of_choice(
      slot, top_k, [&](std::uint32_t k) { return load_id(routing, first + k); },
      [&](std::uint32_t k) { return load_weight(routing, first + k); });
  const std::uint64_t place =
      target.extents.slot_after(step.first_slot, row) * target.extents.row_width() +
      std::uint64_t{layer} * top_k + rank;
  if (target.id_bytes() == 1) {
    static_cast<std::uint8_t*>(target.ids)[place] = static_cast<std::uint8_t>(id);
  } else {
    static_cast<std::uint16_t*>(target.ids)[place] = static_cast<std::uint16_t>(id);
  }
  target.weights[place] = half_bits(load_weight(routing, first + slot));
}

// --- checking against a kernel that routes by itself ---

// What a router and a kernel chose for the rows of one layer, and by what.
struct TwoChoices {
  const void* ours;  // [rows, top_k], as `capture_choice` was given it
  IdType our_type;
  const void* theirs;  // [rows, top_k]
  IdType their_type;
  std::uint64_t rows;
  RouterScores scores;
};

// One thread per layer and launch. A kernel that told of fewer rows has not told of the step.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void note_checked(const CaptureTarget& target,
                                                const CaptureStep& step, std::uint64_t rows) {
  if (step.rows == 0 || rows < step.rows) return;
  Atomics::add(record_of(target, step) + ControlLayout::kCheckedLayers, std::uint64_t{1});
}

// One thread per row. Of the rows that differ one is kept, whichever comes first.
// `Atomics::swap(word, expected, desired)` gives what the word was.
template <class Atomics>
ROUTESTATS_HOST_DEVICE inline void check_choice(const CaptureTarget& target,
                                                const CaptureStep& step, const TwoChoices& choices,
                                                std::uint32_t layer, std::uint32_t row) {
  if (row >= step.rows) return;
  const std::uint32_t top_k = target.extents.top_k;
  const std::uint64_t first = std::uint64_t{row} * top_k;
  const auto ours = [&](std::uint32_t k) {
    return load_integer(choices.ours, choices.our_type, first + k);
  };
  const auto theirs = [&](std::uint32_t k) {
    return load_integer(choices.theirs, choices.their_type, first + k);
  };
  const Agreement found = agreement_of(choices.scores, row, top_k, ours, theirs);
  if (found == Agreement::same) return;
  std::uint64_t* const record = record_of(target, step);
  if (found == Agreement::near_tie) {
    Atomics::add(record + ControlLayout::kNearTies, std::uint64_t{1});
    return;
  }
  const std::uint64_t before =
      Atomics::swap(record + ControlLayout::kDifference, kNoFault, FaultPlace{layer, row, 0}.key());
  if (before != kNoFault) return;
  for (std::uint32_t k = 0; k < top_k; k += 4) {
    std::uint64_t word = 0;
    for (std::uint32_t i = 0; i < 4 && k + i < top_k; ++i) {
      word |= (static_cast<std::uint64_t>(theirs(k + i)) & 0xffffu) << (16 * i);
    }
    record[ControlLayout::kTheirs + k / 4] = word;
  }
}

// Id `k` of what `check_choice` kept. Kernels tell their choice in 16 bits, with their sign.
inline std::int16_t kept_id(const std::uint64_t* record, std::uint32_t k) {
  return static_cast<std::int16_t>(record[ControlLayout::kTheirs + k / 4] >> (16 * (k % 4)));
}

// --- counting from the ring ---

// One thread per row and choice copies the ids of chosen slots of the ring side by side, to [rows,
// layers, top_k] in the type of the ring.
ROUTESTATS_HOST_DEVICE inline void gather_id(const CaptureTarget& target,
                                             const std::uint32_t* slots, std::uint64_t choice,
                                             void* gathered) {
  const std::uint64_t width = target.extents.row_width();
  const std::uint64_t row = choice / width;
  const std::uint64_t place = slots[row] * width + (choice - row * width);
  if (target.id_bytes() == 1) {
    static_cast<std::uint8_t*>(gathered)[choice] =
        static_cast<const std::uint8_t*>(target.ids)[place];
  } else {
    static_cast<std::uint16_t*>(gathered)[choice] =
        static_cast<const std::uint16_t*>(target.ids)[place];
  }
}

// --- the end of a step ---

// The position and token of each row of one step, read from the device buffers of the engine.
struct RowTags {
  const void* positions;
  IdType position_type;
  const void* token_ids;
  IdType token_type;
};

// One thread per row.
ROUTESTATS_HOST_DEVICE inline void tag_row(const CaptureTarget& target, const CaptureStep& step,
                                           const RowTags& tags, std::uint32_t row) {
  const auto value = [row](const void* data, IdType type) {
    return static_cast<std::int32_t>(load_integer(data, type, row));
  };
  std::int32_t* tag = target.tags + 2 * target.extents.slot_after(step.first_slot, row);
  tag[0] = value(tags.positions, tags.position_type);
  tag[1] = value(tags.token_ids, tags.token_type);
}

// One thread: work from here on belongs to no step.
ROUTESTATS_HOST_DEVICE inline void shut_step(const CaptureTarget& target) { target.control[1] = 0; }

// One thread: shuts the step and removes its stamps from the record. The next step takes its number
// and its record. So the numbers in use are consecutive, and no two of them share a record.
ROUTESTATS_HOST_DEVICE inline void forget_step(const CaptureTarget& target,
                                               const CaptureStep& step) {
  shut_step(target);
  std::uint64_t* const stamps = record_of(target, step) + target.layout().stamps();
  for (std::uint32_t layer = 0; layer < target.extents.layers; ++layer) {
    stamps[layer] = kNeverStamped;
  }
}

}  // namespace routestats
