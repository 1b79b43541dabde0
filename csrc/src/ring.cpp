#include "routestats/ring.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "routestats/route_row.hpp"

namespace routestats {
namespace {

std::int64_t load_id(const LayerRouting& routing, std::uint64_t index) {
  return routing.id_type == IdType::i32 ? static_cast<const std::int32_t*>(routing.ids)[index]
                                        : static_cast<const std::int64_t*>(routing.ids)[index];
}

float load_weight(const LayerRouting& routing, std::uint64_t index) {
  switch (routing.weight_type) {
    case WeightType::f32:
      return static_cast<const float*>(routing.weights)[index];
    case WeightType::f16:
      return float_from_half(static_cast<const std::uint16_t*>(routing.weights)[index]);
    case WeightType::bf16:
      break;
  }
  return float_from_bfloat16(static_cast<const std::uint16_t*>(routing.weights)[index]);
}

RingConfig checked(const RingConfig& config) {
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
  return config;
}

}  // namespace

CaptureRing::CaptureRing(const RingConfig& config)
    : config_(checked(config)),
      extents_{config_.capacity, config_.layers, config_.top_k},
      ids_(config_.capacity * extents_.row_width() * id_bytes()),
      weights_(config_.weights ? config_.capacity * extents_.row_width() : 0),
      layer_stamps_(config_.layers, 0) {}

bool CaptureRing::begin_step(std::uint64_t rows) {
  if (rows > config_.capacity) {
    throw std::invalid_argument("a step of " + std::to_string(rows) +
                                " rows exceeds the ring's capacity of " +
                                std::to_string(config_.capacity));
  }
  if (step_open_) throw std::logic_error("begin_step: the previous step is still open");
  std::unique_lock lock(mutex_);
  const auto has_room = [&] { return head_ - tail_ + rows <= config_.capacity; };
  if (config_.overflow == Overflow::block) {
    room_.wait(lock, [&] { return has_room() || closed_ || !failure_.empty(); });
  }
  if (!failure_.empty()) throw CaptureFault(failure_);
  if (closed_) throw CaptureFault("the ring is closed");
  if (!has_room()) {
    dropped_rows_ += rows;
    ++dropped_steps_;
    return false;
  }
  step_open_ = true;
  step_rows_ = rows;
  step_first_row_ = head_;
  fault_.clear();
  return true;
}

void CaptureRing::note_fault(std::string what) {
  if (fault_.empty()) fault_ = std::move(what);  // the first one is the cause of the others
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
  // Rows are ordered in this scratch; top_k is bounded only by the number of experts.
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
  {
    const std::lock_guard lock(mutex_);
    head_ += step_rows_;
    committed_.push_back({number, step_rows_});
  }
  ready_.notify_one();
  return number;
}

void CaptureRing::abandon_step() noexcept {
  if (!step_open_) return;
  step_open_ = false;
  ++step_number_;
}

std::uint64_t CaptureRing::wait(std::uint64_t min_rows, double seconds) {
  std::unique_lock lock(mutex_);
  // More than the ring can hold would never come.
  const std::uint64_t wanted = std::clamp<std::uint64_t>(min_rows, 1, config_.capacity / 2 + 1);
  ready_.wait_for(lock, std::chrono::duration<double>(seconds),
                  [&] { return head_ - tail_ >= wanted || closed_; });
  return head_ - tail_;
}

std::vector<Step> CaptureRing::peek(std::uint64_t max_rows) {
  const std::lock_guard lock(mutex_);
  std::vector<Step> steps;
  std::uint64_t rows = 0;
  for (const Step& step : committed_) {
    if (!steps.empty() && rows + step.rows > max_rows) break;
    rows += step.rows;
    steps.push_back(step);
  }
  return steps;
}

void CaptureRing::take(const std::vector<Step>& steps, void* ids, std::uint16_t* weights) {
  std::uint64_t rows = 0;
  for (const Step& step : steps) rows += step.rows;
  // Committed slots are not written again before tail_ moves, so the copy needs no lock.
  const std::uint64_t width = extents_.row_width();
  auto* out = static_cast<std::uint8_t*>(ids);
  for (std::uint64_t done = 0; done < rows;) {
    const std::uint64_t row = tail_ + done;
    const std::uint64_t piece = extents_.contiguous(row, rows - done);
    const std::uint64_t from = extents_.slot(row) * width;
    std::memcpy(out + done * width * id_bytes(), ids_.data() + from * id_bytes(),
                piece * width * id_bytes());
    if (weights != nullptr && config_.weights) {
      std::memcpy(weights + done * width, weights_.data() + from, piece * width * sizeof *weights);
    }
    done += piece;
  }
  {
    const std::lock_guard lock(mutex_);
    tail_ += rows;
    committed_.erase(committed_.begin(),
                     committed_.begin() + static_cast<std::ptrdiff_t>(steps.size()));
  }
  room_.notify_one();
}

void CaptureRing::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  room_.notify_all();
  ready_.notify_all();
}

void CaptureRing::fail(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_.empty()) failure_ = reason.empty() ? "the draining side failed" : reason;
  }
  room_.notify_all();
}

std::uint64_t CaptureRing::dropped_rows() const {
  const std::lock_guard lock(mutex_);
  return dropped_rows_;
}

std::uint64_t CaptureRing::dropped_steps() const {
  const std::lock_guard lock(mutex_);
  return dropped_steps_;
}

std::uint64_t CaptureRing::committed_rows() const {
  const std::lock_guard lock(mutex_);
  return head_;
}

}  // namespace routestats
