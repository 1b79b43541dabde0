// Compares the ring that kernels write, with the kernels compiled for the host, with the ring of
// the host: the same steps give the same rows, in every number format, and the same faults.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "capture/step_ring.hpp"
#include "tests/emulated_step_device.hpp"
#include "tests/expect.hpp"

namespace {

using namespace routestats;

// The memory of a device, and a ring over it.
struct Device {
  Device(const RingConfig& config, std::uint64_t capacity, std::uint32_t checked_layers = 0)
      : target{nullptr,       nullptr, nullptr, nullptr, {capacity, config.layers, config.top_k},
               config.experts},
        control(target.layout().words()),
        ids(capacity * target.extents.row_width() * target.id_bytes()),
        weights(capacity * target.extents.row_width()),
        tags(2 * capacity) {
    target.control = control.data();
    target.ids = ids.data();
    target.weights = weights.data();
    target.tags = tags.data();
    ring = std::make_unique<StepRing>(config, target.extents,
                                      std::make_unique<EmulatedStepDevice>(target), checked_layers);
  }

  CaptureTarget target;
  std::vector<std::uint64_t> control;
  std::vector<std::uint8_t> ids;
  std::vector<std::uint16_t> weights;
  std::vector<std::int32_t> tags;
  std::unique_ptr<StepRing> ring;
};

// The routing of one layer in some number format, with its memory.
struct Routing {
  std::vector<std::byte> ids;
  std::vector<std::byte> weights;
  LayerRouting view{};
};

template <class Value>
void append(std::vector<std::byte>& bytes, Value value) {
  const auto* first = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), first, first + sizeof value);
}

Routing draw(std::mt19937& random, const RingConfig& config, std::uint64_t rows, IdType id_type,
             WeightType weight_type) {
  Routing routing;
  std::vector<std::uint32_t> experts(config.experts);
  for (std::uint32_t e = 0; e < config.experts; ++e) experts[e] = e;
  for (std::uint64_t row = 0; row < rows; ++row) {
    std::shuffle(experts.begin(), experts.end(), random);
    for (std::uint32_t k = 0; k < config.top_k; ++k) {
      if (id_type == IdType::i64) {
        append(routing.ids, std::int64_t{experts[k]});
      } else if (id_type == IdType::i16) {
        append(routing.ids, static_cast<std::int16_t>(experts[k]));
      } else {
        append(routing.ids, experts[k]);
      }
      // Few distinct weights, so that ties occur; sometimes one is NaN.
      const float weight =
          random() % 50 == 0 ? __builtin_nanf("") : static_cast<float>(random() % 5) / 7.0F - 0.2F;
      std::uint32_t bits;
      std::memcpy(&bits, &weight, sizeof bits);
      switch (weight_type) {
        case WeightType::f32:
          append(routing.weights, weight);
          break;
        case WeightType::f16:
          append(routing.weights, half_bits(weight));
          break;
        case WeightType::bf16:
          append(routing.weights, static_cast<std::uint16_t>(bits >> 16));
          break;
      }
    }
  }
  routing.view = {routing.ids.data(), id_type, routing.weights.data(), weight_type, rows};
  return routing;
}

struct Rows {
  std::vector<std::uint8_t> ids;
  std::vector<std::uint16_t> weights;
  std::vector<std::int32_t> tags;
};

Rows room_for(const RingConfig& config, const std::vector<Step>& steps) {
  const std::uint64_t rows = rows_of(steps);
  const std::uint64_t items = rows * config.layers * config.top_k;
  return {std::vector<std::uint8_t>(items * (config.experts <= 256 ? 1 : 2)),
          std::vector<std::uint16_t>(items), std::vector<std::int32_t>(2 * rows)};
}

std::vector<std::uint64_t> rows_from(std::uint64_t first, std::uint64_t count) {
  std::vector<std::uint64_t> rows(count);
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

// The ids of rows by their numbers, from the memory of the device.
std::vector<std::uint8_t> gathered(const CaptureTarget& target,
                                   const std::vector<std::uint64_t>& rows) {
  std::vector<std::uint32_t> slots;
  for (const std::uint64_t row : rows) {
    slots.push_back(static_cast<std::uint32_t>(target.extents.slot(row)));
  }
  const std::uint64_t choices = rows.size() * target.extents.row_width();
  std::vector<std::uint8_t> ids(choices * target.id_bytes());
  for (std::uint64_t choice = 0; choice < choices; ++choice) {
    gather_id(target, slots.data(), choice, ids.data());
  }
  return ids;
}

void equals_the_host_ring(std::uint32_t experts, std::uint32_t top_k, IdType id_type,
                          WeightType weight_type) {
  const RingConfig config{3, experts, top_k, 23, true, Overflow::drop};
  CaptureRing host(config);
  Device device(config, 29);  // the memory may be larger than the part in use
  std::mt19937 random(experts * 31 + top_k);
  std::vector<std::int64_t> positions(64);
  std::vector<std::int32_t> tokens(64);
  std::uint64_t drained = 0;
  for (int step = 0; step < 300; ++step) {
    const std::uint64_t rows = 1 + random() % 9;
    const std::uint64_t padding = random() % 4;
    for (auto& position : positions) position = static_cast<std::int64_t>(random() % 1000);
    for (auto& token : tokens) token = static_cast<std::int32_t>(random() % 1000);
    const bool room = host.begin_step(rows);
    expect(device.ring->begin_step(rows, 0) == room, "the same steps have room");
    const bool abandon = random() % 10 == 0;
    for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
      const Routing routing = draw(random, config, rows + padding, id_type, weight_type);
      if (room) host.write_layer(layer, routing.view);
      // A replayed graph runs its kernels even if no step is open.
      emulate_capture(device.target, routing.view, layer);
    }
    if (room && abandon) {
      host.abandon_step();
      device.ring->abandon_step(0);
    } else if (room) {
      host.commit_step();
      device.ring->commit_step({positions.data(), IdType::i64, tokens.data(), IdType::i32}, 0);
    }
    if (random() % 3 != 0) continue;
    const auto steps = host.peek(12);
    const auto others = device.ring->peek(12);
    expect(steps.size() == others.size() && rows_of(steps) == rows_of(others), "the same steps");
    if (steps.empty()) continue;
    Rows expected = room_for(config, steps);
    Rows got = room_for(config, steps);
    host.take(steps, expected.ids.data(), expected.weights.data());
    // In the ring of the host an abandoned step takes a number, in that of the device it does not.
    const std::vector<std::uint64_t> held = rows_from(drained, rows_of(others));
    device.ring->take(others, got.ids.data(), got.weights.data(), got.tags.data());
    expect(gathered(device.target, held) == got.ids, "held rows are counted where they lie");
    device.ring->release();
    drained += rows_of(others);
    expect(expected.ids == got.ids, "ids");
    expect(expected.weights == got.weights, "weights");
  }
  expect(host.dropped_rows() == device.ring->dropped_rows() && host.dropped_rows() > 0, "drops");
}

void tags_follow_their_rows() {
  const RingConfig config{1, 4, 1, 5, true, Overflow::block};
  Device device(config, 5);
  const std::vector<float> weights(3, 1.0F);
  const std::vector<std::int32_t> ids{0, 1, 2};
  for (std::int32_t step = 0; step < 20; ++step) {
    device.ring->begin_step(3, 0);
    emulate_capture(device.target, {ids.data(), IdType::i32, weights.data(), WeightType::f32, 3},
                    0);
    const std::vector<std::int32_t> positions{step, step + 1, step + 2};
    const std::vector<std::int64_t> tokens{-step, 7, 8};
    device.ring->commit_step({positions.data(), IdType::i32, tokens.data(), IdType::i64}, 0);
    const auto steps = device.ring->peek(5);
    Rows rows = room_for(config, steps);
    device.ring->take(steps, rows.ids.data(), nullptr, rows.tags.data());
    device.ring->release();
    expect(rows.ids == std::vector<std::uint8_t>{0, 1, 2}, "ids without weights");
    expect(rows.tags == std::vector<std::int32_t>{step, -step, step + 1, 7, step + 2, 8}, "tags");
  }
}

std::string fault_of(const std::vector<std::uint32_t>& layers, std::int32_t id, std::uint64_t rows,
                     bool after_a_good_step) {
  const RingConfig config{2, 8, 2, 8, true, Overflow::block};
  Device device(config, 8);
  const std::vector<float> weights(8, 0.5F);
  const std::vector<std::int32_t> good{0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<std::int32_t> bad = good;
  bad[3] = id;
  const auto run = [&](const std::vector<std::uint32_t>& routed,
                       const std::vector<std::int32_t>& ids, std::uint64_t routed_rows) {
    device.ring->begin_step(3, 0);
    for (const std::uint32_t layer : routed) {
      emulate_capture(device.target,
                      {ids.data(), IdType::i32, weights.data(), WeightType::f32, routed_rows},
                      layer);
    }
    device.ring->commit_step({good.data(), IdType::i32, good.data(), IdType::i32}, 0);
    const auto steps = device.ring->peek(8);
    Rows out = room_for(config, steps);
    device.ring->take(steps, out.ids.data(), out.weights.data(), out.tags.data());
    device.ring->release();
  };
  if (after_a_good_step) run({0, 1}, good, 4);
  try {
    run(layers, bad, rows);
  } catch (const CaptureFault& fault) {
    return fault.what();
  }
  return "";
}

void faults_are_named() {
  expect(fault_of({0, 1}, 3, 4, true).empty(), "a good step has no fault");
  for (const std::int32_t id : {-1, 8, 300}) {
    expect(fault_of({0, 1}, id, 4, false) ==
               "step 0: MoE layer 0, row 1, slot 1: an expert id outside 0..7",
           "the first id out of range");
  }
  expect(fault_of({1}, 3, 4, true) ==
             "step 1: MoE layer 0 was not written: its routing did not pass through the bound "
             "router",
         "a stamp of the step before does not count");
  expect(fault_of({0, 1, 1}, 3, 4, true) == "step 1: MoE layer 1 was routed twice in one step",
         "twice");
  expect(fault_of({0, 1}, 3, 2, false) == "step 0: MoE layer 0 routed fewer rows than the step's 3",
         "too few rows");
}

// What a kernel chose for three rows of two layers, beside a router that chose {0, 1} for each, by
// logits that fall from expert to expert; experts 1 and 2 differ by `gap`.
struct Compared {
  std::string fault;
  std::uint64_t near_ties = 0;
};

Compared compared(const std::vector<std::int16_t>& theirs, float gap, std::uint64_t rows = 4,
                  std::uint32_t checked_layers = 1) {
  const RingConfig config{2, 300, 2, 8, true, Overflow::block};
  Device device(config, 8, checked_layers);
  std::vector<float> logits;
  for (std::uint32_t row = 0; row < 4; ++row) {
    for (std::uint32_t e = 0; e < config.experts; ++e) {
      logits.push_back(3.0F - (e < 2 ? 0.25F * static_cast<float>(e) : static_cast<float>(e)));
    }
    logits[row * config.experts + 2] = logits[row * config.experts + 1] - gap;
  }
  const std::vector<std::int32_t> ids{0, 1, 1, 0, 0, 1, 7, 8};  // of which the last is padding
  const std::vector<float> weights(8, 0.5F);
  const RouterScores scores{logits.data(),
                            WeightType::f32,
                            nullptr,
                            WeightType::f32,
                            ScoreKind::logit,
                            config.experts,
                            1,
                            1,
                            1e-3F};
  const TwoChoices choices{ids.data(), IdType::i32, theirs.data(), IdType::i16, rows, scores};
  Compared found;
  for (int step = 0; step < 2; ++step) {       // the second one has the record of no other
    emulate_check(device.target, choices, 1);  // outside a step
    device.ring->begin_step(3, 0);
    for (const std::uint32_t layer : {0u, 1u}) {
      emulate_capture(device.target, {ids.data(), IdType::i32, weights.data(), WeightType::f32, 4},
                      layer);
    }
    emulate_check(device.target, choices, 1);
    device.ring->commit_step({ids.data(), IdType::i32, ids.data(), IdType::i32}, 0);
    const auto steps = device.ring->peek(8);
    Rows out = room_for(config, steps);
    found.fault = error_of(
        [&] { device.ring->take(steps, out.ids.data(), out.weights.data(), out.tags.data()); });
    if (!found.fault.empty()) break;
    device.ring->release();
  }
  found.near_ties = device.ring->near_ties();
  return found;
}

void choices_of_kernels_are_compared() {
  const auto same = compared({1, 0, 0, 1, 0, 1, 5, 5}, 1.0F);
  expect(same.fault.empty() && same.near_ties == 0, "the same sets; padding is not compared");
  const auto tie = compared({0, 2, 0, 1, 2, 0, 5, 5}, 0.004F);
  expect(tie.fault.empty() && tie.near_ties == 4, "two near ties a step: " + tie.fault);
  expect(compared({0, 1, 0, 1, 2, 0, 5, 5}, 0.006F).fault ==
             "step 0: MoE layer 1, row 2: the router chose experts {0, 1}, but the kernel {0, 2}",
         "more than rounding");
  expect(compared({0, 1, 299, 1, 0, 1, 5, 5}, 0.0F).fault ==
             "step 0: MoE layer 1, row 1: the router chose experts {0, 1}, but the kernel {1, 299}",
         "ids of two bytes");
  for (const std::int16_t id : std::vector<std::int16_t>{0, -1, 300}) {  // the first is there twice
    expect(!compared({0, id, 0, 1, 0, 1, 5, 5}, 0.0F).fault.empty(), "no choice of two experts");
  }
  expect(compared({1, 0, 0, 1, 0, 1, 5, 5}, 1.0F, 2).fault ==
             "step 0: the kernels of 0 MoE layers told what they chose; expected 1",
         "fewer rows than the step's");
  expect(compared({1, 0, 0, 1, 0, 1, 5, 5}, 1.0F, 4, 2).fault ==
             "step 0: the kernels of 1 MoE layers told what they chose; expected 2",
         "a layer that was not compared");
}

void no_more_steps_than_records() {
  const RingConfig config{1, 4, 1, 1000, true, Overflow::drop};
  Device device(config, 1000);
  const std::vector<std::int32_t> zero(1, 0);
  const std::vector<float> weights(1, 1.0F);
  for (std::uint32_t step = 0; step < kStepsInFlight; ++step) {
    expect(device.ring->begin_step(1, 0), "room for a record");
    emulate_capture(device.target, {zero.data(), IdType::i32, weights.data(), WeightType::f32, 1},
                    0);
    device.ring->commit_step({zero.data(), IdType::i32, zero.data(), IdType::i32}, 0);
  }
  expect(!device.ring->begin_step(1, 0) && device.ring->dropped_steps() == 1, "no record left");
}

// A step that was taken keeps its slots and its record until it is released.
void taken_rows_are_held() {
  const RingConfig config{1, 4, 1, 4, true, Overflow::drop};
  Device device(config, 4);
  const std::vector<std::int32_t> ids{0, 1, 2};
  const std::vector<float> weights(3, 1.0F);
  const auto run = [&] {
    if (!device.ring->begin_step(3, 0)) return false;
    emulate_capture(device.target, {ids.data(), IdType::i32, weights.data(), WeightType::f32, 3},
                    0);
    device.ring->commit_step({ids.data(), IdType::i32, ids.data(), IdType::i32}, 0);
    return true;
  };
  expect(run() && !run(), "room for one step");
  const auto steps = device.ring->peek(4);
  Rows rows = room_for(config, steps);
  device.ring->take(steps, rows.ids.data(), rows.weights.data(), rows.tags.data());
  expect(!run() && device.ring->dropped_rows() == 6, "the slots are still in use");
  device.ring->release();
  device.ring->release();
  expect(run() && device.ring->peek(4).size() == 1, "they are free, once");
}

// A step that waits to be drained keeps its record, whatever the number of abandoned steps after
// it. The next step has no stamp of them.
void abandoned_steps_take_no_record() {
  const RingConfig config{2, 4, 1, 8, true, Overflow::block};
  Device device(config, 8);
  const std::vector<std::int32_t> ids(3, 1);
  const std::vector<float> weights(3, 1.0F);
  const LayerRouting routing{ids.data(), IdType::i32, weights.data(), WeightType::f32, 3};
  const auto run = [&] {
    for (const std::uint32_t layer : {0u, 1u}) emulate_capture(device.target, routing, layer);
    device.ring->commit_step({ids.data(), IdType::i32, ids.data(), IdType::i32}, 0);
  };
  device.ring->begin_step(3, 0);
  run();
  for (std::uint32_t i = 0; i < 2 * kStepsInFlight; ++i) {
    device.ring->begin_step(3, 0);
    emulate_capture(device.target, routing, 0);
    device.ring->abandon_step(0);
  }
  device.ring->begin_step(2, 0);
  run();
  const auto steps = device.ring->peek(8);
  expect(steps.size() == 2 && steps[0].number + 1 == steps[1].number, "numbers follow each other");
  Rows rows = room_for(config, steps);
  device.ring->take(steps, rows.ids.data(), rows.weights.data(), rows.tags.data());
  expect(rows.ids == std::vector<std::uint8_t>(10, 1), "rows around abandoned steps");
}

}  // namespace

int main() {
  for (const IdType id : {IdType::i16, IdType::i32, IdType::i64, IdType::u32}) {
    for (const WeightType weight : {WeightType::f32, WeightType::f16, WeightType::bf16}) {
      equals_the_host_ring(8, 2, id, weight);
      equals_the_host_ring(1, 1, id, weight);
      equals_the_host_ring(300, 9, id, weight);
    }
  }
  tags_follow_their_rows();
  faults_are_named();
  choices_of_kernels_are_compared();
  taken_rows_are_held();
  no_more_steps_than_records();
  abandoned_steps_take_no_record();
  std::puts("step ring: ok");
}
