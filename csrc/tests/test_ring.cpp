// Compares the ring with a plain queue of rows: wrap-around, order, faults, drops.
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "capture/ring.hpp"
#include "tests/expect.hpp"

namespace {

using namespace routestats;

constexpr std::uint32_t kLayers = 3;
constexpr std::uint32_t kExperts = 300;
constexpr std::uint32_t kTopK = 2;

void write_layer(CaptureRing& ring, std::uint32_t layer, const std::vector<std::int32_t>& ids,
                 const std::vector<float>& weights) {
  ring.write_layer(layer,
                   {ids.data(), IdType::i32, weights.data(), WeightType::f32, ids.size() / kTopK});
}

void steps_wrap_around() {
  CaptureRing ring({kLayers, kExperts, kTopK, 7, true, Overflow::block});
  std::mt19937 random(0);
  for (int step = 0; step < 200; ++step) {
    const std::uint64_t rows = 1 + random() % 7;
    std::vector<std::uint16_t> expected(rows * kLayers * kTopK);
    expect(ring.begin_step(rows), "begin_step");
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      std::vector<std::int32_t> ids(rows * kTopK);
      std::vector<float> weights(rows * kTopK);
      for (std::uint64_t row = 0; row < rows; ++row) {
        const auto first = static_cast<std::int32_t>(random() % kExperts);
        const auto second = static_cast<std::int32_t>(
            (static_cast<std::uint32_t>(first) + 1 + random() % (kExperts - 1)) % kExperts);
        const bool swapped = random() % 2 == 0;
        ids[row * 2] = swapped ? second : first;
        ids[row * 2 + 1] = swapped ? first : second;
        weights[row * 2] = swapped ? 0.25F : 0.75F;
        weights[row * 2 + 1] = swapped ? 0.75F : 0.25F;
        expected[(row * kLayers + layer) * 2] = static_cast<std::uint16_t>(first);
        expected[(row * kLayers + layer) * 2 + 1] = static_cast<std::uint16_t>(second);
      }
      write_layer(ring, layer, ids, weights);
    }
    expect(ring.commit_step() == static_cast<std::uint64_t>(step), "step number");
    const auto steps = ring.peek(100);
    expect(steps.size() == 1 && steps[0].rows == rows, "peek");
    std::vector<std::uint16_t> ids(expected.size());
    std::vector<std::uint16_t> weights(expected.size());
    ring.take(steps, ids.data(), weights.data());
    expect(ids == expected, "ids of step " + std::to_string(step));
    expect(weights[0] == 0x3a00 && weights[1] == 0x3400, "weights 0.75 and 0.25");
  }
}

void faults_are_named() {
  CaptureRing ring({kLayers, kExperts, kTopK, 8, false, Overflow::block});
  const std::vector<float> weights{0.5F, 0.5F};
  ring.begin_step(1);
  write_layer(ring, 0, {1, 2}, weights);
  write_layer(ring, 1, {1, 300}, weights);
  write_layer(ring, 2, {1, 2}, weights);
  std::string fault;
  try {
    ring.commit_step();
  } catch (const CaptureFault& error) {
    fault = error.what();
  }
  expect(fault == "step 0: MoE layer 1, row 0: expert id 300, but num_experts is 300", fault);
  expect(ring.peek(8).empty(), "a faulty step is not handed over");
  ring.begin_step(1);
  write_layer(ring, 0, {7, 3}, weights);
  try {
    ring.commit_step();
    expect(false, "a missing layer is a fault");
  } catch (const CaptureFault&) {
  }
}

void full_rings_drop_whole_steps() {
  CaptureRing ring({1, kExperts, kTopK, 2, false, Overflow::drop});
  expect(ring.begin_step(2), "room for two");
  write_layer(ring, 0, {1, 2, 3, 4}, {0.5F, 0.5F, 0.5F, 0.5F});
  ring.commit_step();
  expect(!ring.begin_step(1) && !ring.begin_step(2), "no room");
  expect(ring.dropped_rows() == 3 && ring.dropped_steps() == 2, "drop count");
}

}  // namespace

int main() {
  steps_wrap_around();
  faults_are_named();
  full_rings_drop_whole_steps();
  std::puts("ring: ok");
}
