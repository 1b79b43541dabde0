#include "capture/step_ring.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace routestats {
namespace {

const RingConfig& checked(const RingConfig& config, const RingExtents& extents) {
  routestats::checked(config);
  if (config.layers != extents.layers || config.top_k != extents.top_k) {
    throw std::invalid_argument("extents: expected the layers and top_k of the ring");
  }
  if (config.capacity > extents.capacity) {
    throw std::invalid_argument("capacity: expected at most the device's " +
                                std::to_string(extents.capacity) + " rows, got " +
                                std::to_string(config.capacity));
  }
  if (config.layers > 65535) throw std::invalid_argument("layers: expected at most 65535");
  // A kernel numbers its threads in 32 bits, also those after the last row.
  if (extents.capacity * extents.top_k > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument("capacity: expected capacity * top_k below 2^31");
  }
  return config;
}

std::string as_set(std::vector<std::int64_t> ids) {
  std::sort(ids.begin(), ids.end());
  std::string text;
  for (const std::int64_t id : ids) text += (text.empty() ? "" : ", ") + std::to_string(id);
  return "{" + text + "}";
}

}  // namespace

StepRing::StepRing(const RingConfig& config, const RingExtents& extents,
                   std::unique_ptr<StepDevice> device, std::uint32_t checked_layers)
    : config_(checked(config, extents)),
      extents_(extents),
      device_(std::move(device)),
      checked_layers_(checked_layers),
      ledger_(config_.capacity, config_.overflow, kStepsInFlight) {
  device_->reset();
}

bool StepRing::begin_step(std::uint64_t rows, Stream stream) {
  if (step_open_) throw std::logic_error("begin_step: the previous step is still open");
  const auto first_row = ledger_.reserve(rows);
  if (!first_row) return false;
  open_.first_slot = extents_.slot(*first_row);
  open_.rows = rows;
  device_->begin(open_, stream);
  step_open_ = true;
  return true;
}

std::uint64_t StepRing::commit_step(const RowTags& tags, Stream stream) {
  if (!step_open_) throw std::logic_error("commit_step: no step is open");
  step_open_ = false;
  const std::uint64_t number = open_.number++;
  device_->finish({open_.first_slot, open_.rows, number}, tags, stream);
  ledger_.commit({number, open_.rows});
  return number;
}

void StepRing::abandon_step(Stream stream) {
  if (!step_open_) return;
  step_open_ = false;
  device_->abandon(open_, stream);
}

void StepRing::take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights,
                    std::int32_t* tags) {
  std::uint64_t first_row = ledger_.tail();
  std::uint64_t near_ties = 0;
  for (const Step& step : steps) {
    device_->wait(step.number);
    check_record(step, first_row);
    first_row += step.rows;
    near_ties += device_->record(step.number)[ControlLayout::kNearTies];
  }
  near_ties_ += near_ties;
  const std::uint64_t rows = rows_of(steps);
  const std::uint64_t width = extents_.row_width();
  const std::uint64_t id_width = width * id_bytes();
  auto* out = static_cast<std::uint8_t*>(ids);
  for (std::uint64_t done = 0; done < rows;) {
    const std::uint64_t row = ledger_.tail() + done;
    const std::uint64_t piece = extents_.contiguous(row, rows - done);
    const std::uint64_t from = extents_.slot(row);
    std::memcpy(out + done * id_width, device_->ids() + from * id_width, piece * id_width);
    std::memcpy(tags + 2 * done, device_->tags() + 2 * from, 2 * piece * sizeof *tags);
    if (weights != nullptr) {
      std::memcpy(weights + done * width, device_->weights() + from * width,
                  piece * width * sizeof *weights);
    }
    done += piece;
  }
  held_ = steps;
}

void StepRing::release() {
  if (held_.empty()) return;
  ledger_.release(held_);
  held_.clear();
}

void StepRing::check_record(const Step& step, std::uint64_t first_row) const {
  const std::uint64_t* record = device_->record(step.number);
  const std::uint64_t* stamps = record + ControlLayout{config_.layers, config_.top_k}.stamps();
  const auto refuse = [&](std::uint64_t layer, const std::string& what) {
    throw CaptureFault("step " + std::to_string(step.number) + ": MoE layer " +
                       std::to_string(layer) + what);
  };
  for (std::uint32_t layer = 0; layer < config_.layers; ++layer) {
    const std::uint64_t stamp = stamps[layer];
    if (!is_stamp_of(stamp, step.number)) {
      refuse(layer, " was not written: its routing did not pass through the bound router");
    }
    if ((stamp & kTwice) != 0) refuse(layer, " was routed twice in one step");
    if ((stamp & kTooFewRows) != 0) {
      refuse(layer, " routed fewer rows than the step's " + std::to_string(step.rows));
    }
  }
  if (record[ControlLayout::kFault] != kNoFault) {
    const FaultPlace place = FaultPlace::of(record[ControlLayout::kFault]);
    refuse(place.layer, ", row " + std::to_string(place.row) + ", slot " +
                            std::to_string(place.slot) + ": an expert id outside 0.." +
                            std::to_string(config_.experts - 1));
  }
  if (record[ControlLayout::kDifference] != kNoFault) {
    const FaultPlace place = FaultPlace::of(record[ControlLayout::kDifference]);
    refuse(place.layer, difference(record, place, first_row));
  }
  if (record[ControlLayout::kCheckedLayers] != checked_layers_) {
    throw CaptureFault("step " + std::to_string(step.number) + ": the kernels of " +
                       std::to_string(record[ControlLayout::kCheckedLayers]) +
                       " MoE layers told what they chose; expected " +
                       std::to_string(checked_layers_));
  }
}

std::string StepRing::difference(const std::uint64_t* record, const FaultPlace& place,
                                 std::uint64_t first_row) const {
  std::vector<std::int64_t> ours;
  std::vector<std::int64_t> theirs;
  const std::uint64_t first = extents_.offset(first_row + place.row, place.layer);
  for (std::uint32_t k = 0; k < config_.top_k; ++k) {
    std::uint16_t id = device_->ids()[first + k];
    if (id_bytes() == 2) std::memcpy(&id, device_->ids() + 2 * (first + k), 2);
    ours.push_back(id);
    theirs.push_back(kept_id(record, k));
  }
  return ", row " + std::to_string(place.row) + ": the router chose experts " + as_set(ours) +
         ", but the kernel " + as_set(theirs);
}

}  // namespace routestats
