#include "capture/ring.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "capture/route_row.hpp"

namespace routestats {

const RingConfig& checked(const RingConfig& config) {
  if (config.layers == 0) throw std::invalid_argument("layers: expected at least 1, got 0");
  if (config.experts == 0 || config.experts > 65536) {
    throw std::invalid_argument("experts: expected 1 to 65536, got " +
                                std::to_string(config.experts));
  }
  if (config.top_k == 0 || config.top_k > config.experts) {
    throw std::invalid_argument("top_k: expected 1 to " + std::to_string(config.experts) +
                                ", got " + std::to_string(config.top_k));
  }
  if (config.capacity == 0) throw std::invalid_argument("capacity: expected at least 1 row, got 0");
  // Two bytes per id or weight: the bytes of all rows must be a size.
  const std::uint64_t width = std::uint64_t{config.layers} * config.top_k;
  const std::uint64_t most = (std::uint64_t{1} << 61) / width;
  if (config.capacity > most) {
    throw std::invalid_argument("capacity: expected at most " + std::to_string(most) +
                                " rows, got " + std::to_string(config.capacity));
  }
  return config;
}

CaptureRing::CaptureRing(const RingConfig& config)
    : config_(checked(config)),
      extents_{config_.capacity, config_.layers, config_.top_k},
      ids_(config_.capacity * extents_.row_width() * id_bytes()),
      weights_(config_.weights ? config_.capacity * extents_.row_width() : 0),
      layer_stamps_(config_.layers, 0),
      ledger_(config_.capacity, config_.overflow) {}

bool CaptureRing::begin_step(std::uint64_t rows) {
  if (step_open_) throw std::logic_error("begin_step: the previous step is still open");
  const auto first_row = ledger_.reserve(rows);
  if (!first_row) return false;
  step_open_ = true;
  step_rows_ = rows;
  step_first_row_ = *first_row;
  fault_.clear();
  return true;
}

void CaptureRing::note_fault(std::string what) {
  if (fault_.empty()) fault_ = std::move(what);  // the first fault causes the others
}

void CaptureRing::write_layer(std::uint32_t layer, const LayerRouting& routing) noexcept {
  if (!step_open_) return;
  if (layer >= config_.layers) {
    note_fault("MoE layer " + std::to_string(layer) + " was routed, but the model has " +
               std::to_string(config_.layers));
    return;
  }
  if (layer_stamps_[layer] == step_number_ + 1) {
    note_fault("MoE layer " + std::to_string(layer) + " was routed twice in one step");
    return;
  }
  if (routing.rows < step_rows_) {
    note_fault("MoE layer " + std::to_string(layer) + " routed " + std::to_string(routing.rows) +
               " rows of a step of " + std::to_string(step_rows_));
    return;
  }
  if (id_bytes() == 1) {
    store_layer<std::uint8_t>(layer, routing);
  } else {
    store_layer<std::uint16_t>(layer, routing);
  }
  layer_stamps_[layer] = step_number_ + 1;
}

template <class Id>
void CaptureRing::store_layer(std::uint32_t layer, const LayerRouting& routing) {
  const std::uint32_t top_k = config_.top_k;
  Id* const ring_ids = reinterpret_cast<Id*>(ids_.data());
  // Rows are ordered in this scratch memory; only the number of experts bounds top_k.
  thread_local std::vector<Id> ids;
  thread_local std::vector<float> weights;
  ids.resize(top_k);
  weights.resize(top_k);
  for (std::uint64_t row = 0; row < step_rows_; ++row) {
    for (std::uint32_t k = 0; k < top_k; ++k) {
      const std::int64_t id = load_id(routing, row * top_k + k);
      if (id < 0 || id >= static_cast<std::int64_t>(config_.experts)) {
        note_fault("MoE layer " + std::to_string(layer) + ", row " + std::to_string(row) +
                   ": expert id " + std::to_string(id) + ", but num_experts is " +
                   std::to_string(config_.experts));
        return;
      }
      ids[k] = static_cast<Id>(id);
      weights[k] = load_weight(routing, row * top_k + k);
    }
    order_choices(ids.data(), weights.data(), top_k);
    const std::uint64_t offset = extents_.offset(step_first_row_ + row, layer);
    std::copy(ids.begin(), ids.end(), ring_ids + offset);
    if (config_.weights) {
      std::transform(weights.begin(), weights.end(),
                     weights_.begin() + static_cast<std::ptrdiff_t>(offset), half_bits);
    }
  }
}

std::uint64_t CaptureRing::commit_step() {
  if (!step_open_) throw std::logic_error("commit_step: no step is open");
  step_open_ = false;
  const std::uint64_t number = step_number_++;
  for (std::uint32_t layer = 0; fault_.empty() && layer < config_.layers; ++layer) {
    if (layer_stamps_[layer] != number + 1) {
      note_fault("MoE layer " + std::to_string(layer) +
                 " was not written: its routing did not pass through the bound router");
    }
  }
  if (!fault_.empty()) throw CaptureFault("step " + std::to_string(number) + ": " + fault_);
  ledger_.commit({number, step_rows_});
  return number;
}

void CaptureRing::abandon_step() noexcept {
  if (!step_open_) return;
  step_open_ = false;
  ++step_number_;
}

void CaptureRing::take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights) {
  const std::uint64_t rows = rows_of(steps);
  // Committed slots are not written before they are released, so the copy needs no lock.
  const std::uint64_t width = extents_.row_width();
  auto* out = static_cast<std::uint8_t*>(ids);
  for (std::uint64_t done = 0; done < rows;) {
    const std::uint64_t row = ledger_.tail() + done;
    const std::uint64_t piece = extents_.contiguous(row, rows - done);
    const std::uint64_t from = extents_.slot(row) * width;
    std::memcpy(out + done * width * id_bytes(), ids_.data() + from * id_bytes(),
                piece * width * id_bytes());
    if (weights != nullptr && config_.weights) {
      std::memcpy(weights + done * width, weights_.data() + from, piece * width * sizeof *weights);
    }
    done += piece;
  }
  ledger_.release(steps);
}

}  // namespace routestats
