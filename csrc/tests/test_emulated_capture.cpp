// Runs the CUDA sources of capture on an emulated device, which does all work as late as it may,
// and compares captured rows with the ring of the host.
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
#include "cuda/capture.hpp"
#include "cuda/row_gather.hpp"
#include "cuda/step_device.hpp"
#include "tests/expect.hpp"

namespace {

using namespace routestats;

// A ring in the memory of an emulated device. The engine writes it in a stream of its own.
struct Engine {
  Engine(const RingConfig& config, std::uint64_t capacity, std::uint32_t checked_layers = 0)
      : target{nullptr,       nullptr, nullptr, nullptr, {capacity, config.layers, config.top_k},
               config.experts},
        stream(cuda::new_stream()),
        control(cuda::device_array<std::uint64_t>(target.layout().words())),
        ids(cuda::device_array<std::uint8_t>(capacity * target.extents.row_width() *
                                             target.id_bytes())),
        weights(cuda::device_array<std::uint16_t>(capacity * target.extents.row_width())),
        tags(cuda::device_array<std::int32_t>(2 * capacity)) {
    target.control = control.get();
    target.ids = ids.get();
    target.weights = weights.get();
    target.tags = tags.get();
    ring = std::make_unique<StepRing>(
        config, target.extents, std::make_unique<cuda::CudaStepDevice>(target, config.weights),
        checked_layers);
  }
  StepRing::Stream handle() const { return reinterpret_cast<StepRing::Stream>(stream.get()); }

  CaptureTarget target;
  cuda::OwnedStream stream;
  cuda::DeviceArray<std::uint64_t> control;
  cuda::DeviceArray<std::uint8_t> ids;
  cuda::DeviceArray<std::uint16_t> weights;
  cuda::DeviceArray<std::int32_t> tags;
  std::unique_ptr<StepRing> ring;
};

// The device does all work as late as it may: rows that were fetched too early, or slots that were
// used again too soon, would be wrong.
void captured_rows_are_exact(std::uint32_t experts, std::uint32_t top_k) {
  const RingConfig config{3, experts, top_k, 23, true, Overflow::drop};
  CaptureRing host(config);
  Engine engine(config, 29);
  std::mt19937 random(experts);
  const cuda::OwnedStream counting = cuda::new_stream();
  cuda::RowGather gather(counting.get());
  const std::uint32_t id_bytes = engine.target.id_bytes();
  std::uint64_t drained = 0;
  std::vector<std::uint32_t> choices(experts);
  std::iota(choices.begin(), choices.end(), 0u);
  // The static tensors of a graph: written again for every step, in stream order.
  constexpr std::uint64_t kRows = 13;
  const std::uint64_t items = kRows * top_k;
  std::vector<cuda::DeviceArray<std::int32_t>> static_ids;
  std::vector<cuda::DeviceArray<float>> static_weights;
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    static_ids.push_back(cuda::device_array<std::int32_t>(items));
    static_weights.push_back(cuda::device_array<float>(items));
  }
  const auto static_tags = cuda::device_array<std::int32_t>(kRows);
  const auto set = [&](auto* to, const auto& from) {
    cuda::check(cudaMemcpyAsync(to, from.data(), from.size() * sizeof from[0],
                                cudaMemcpyHostToDevice, engine.stream.get()),
                "route");
  };
  std::int32_t number = 0;
  for (int step = 0; step < 200; ++step) {
    const std::uint64_t rows = 1 + random() % 9;
    const bool room = host.begin_step(rows);
    expect(engine.ring->begin_step(rows, engine.handle()) == room, "the same steps have room");
    const bool abandon = random() % 10 == 0;
    for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
      std::vector<std::int32_t> ids;
      std::vector<float> weights;
      for (std::uint64_t row = 0; row < kRows; ++row) {
        std::shuffle(choices.begin(), choices.end(), random);
        for (std::uint32_t k = 0; k < top_k; ++k) {
          ids.push_back(static_cast<std::int32_t>(choices[k]));
          weights.push_back(static_cast<float>(random() % 5) / 7.0F);
        }
      }
      if (room) {
        host.write_layer(layer, {ids.data(), IdType::i32, weights.data(), WeightType::f32, rows});
      }
      set(static_ids[layer].get(), ids);
      set(static_weights[layer].get(), weights);
      cuda::launch_capture(engine.target,
                           {static_ids[layer].get(), IdType::i32, static_weights[layer].get(),
                            WeightType::f32, kRows},
                           layer, engine.stream.get());
    }
    if (room && abandon) {
      host.abandon_step();
      engine.ring->abandon_step(engine.handle());
    } else if (room) {
      host.commit_step();
      std::vector<std::int32_t> tags(kRows);
      for (std::uint64_t row = 0; row < rows; ++row) tags[row] = number++;
      set(static_tags.get(), tags);
      engine.ring->commit_step({static_tags.get(), IdType::i32, static_tags.get(), IdType::i32},
                               engine.handle());
    }
    if (random() % 3 != 0) continue;
    const auto steps = host.peek(12);
    const auto others = engine.ring->peek(12);
    const std::uint64_t taken = rows_of(others);
    expect(steps.size() == others.size() && rows_of(steps) == taken, "the same steps");
    if (steps.empty()) continue;
    const std::uint64_t width = engine.target.extents.row_width();
    std::vector<std::uint8_t> want_ids(taken * width * id_bytes);
    std::vector<std::uint8_t> got_ids(want_ids.size());
    std::vector<std::uint16_t> want_weights(taken * width);
    std::vector<std::uint16_t> got_weights(taken * width);
    std::vector<std::int32_t> tags(2 * taken);
    host.take(steps, want_ids.data(), want_weights.data());
    engine.ring->take(others, got_ids.data(), got_weights.data(), tags.data());
    expect(want_ids == got_ids && want_weights == got_weights, "captured rows");
    std::vector<std::uint32_t> slots;
    for (std::uint64_t row = 0; row < taken; ++row) {
      expect(tags[2 * row] == static_cast<std::int32_t>(drained + row), "tags");
      slots.push_back(static_cast<std::uint32_t>(engine.target.extents.slot(drained + row)));
    }
    const IdView held = gather.gather(engine.target, slots);
    engine.ring->release();
    drained += taken;
    expect(std::memcmp(held.data, got_ids.data(), got_ids.size()) == 0 && held.tokens == taken &&
               held.layers == config.layers && held.slots == top_k &&
               held.token_stride == static_cast<std::int64_t>(width * id_bytes),
           "rows that the ring holds");
  }
  expect(host.dropped_rows() == engine.ring->dropped_rows() && host.dropped_rows() > 0, "drops");
}

void captured_faults_are_named() {
  const RingConfig config{2, 8, 2, 8, true, Overflow::block};
  Engine engine(config, 8);
  const std::vector<float> weights(6, 0.5F);
  const std::vector<std::int32_t> ids{0, 1, 2, 8, 3, -4};
  engine.ring->begin_step(3, engine.handle());
  cuda::launch_capture(engine.target, {ids.data(), IdType::i32, weights.data(), WeightType::f32, 3},
                       0, engine.stream.get());
  cuda::launch_capture(engine.target, {ids.data(), IdType::i32, weights.data(), WeightType::f32, 3},
                       1, engine.stream.get());
  engine.ring->commit_step({ids.data(), IdType::i32, ids.data(), IdType::i32}, engine.handle());
  std::vector<std::uint8_t> out(12);
  std::vector<std::uint16_t> halves(12);
  std::vector<std::int32_t> tags(6);
  const std::string error = error_of(
      [&] { engine.ring->take(engine.ring->peek(8), out.data(), halves.data(), tags.data()); });
  expect(error == "step 0: MoE layer 0, row 1, slot 1: an expert id outside 0..7", error);
}

// The kernel that compares choices, by its launcher; its rule is tested with the ring of steps.
void captured_choices_are_compared() {
  const RingConfig config{1, 8, 2, 2048, true, Overflow::block};
  Engine engine(config, 2048, 1);
  constexpr std::uint64_t kRows = 1500;  // several blocks
  const std::vector<float> weights(2 * kRows, 0.5F);
  std::vector<std::int32_t> ids;
  std::vector<std::int16_t> theirs;
  std::vector<float> logits;
  for (std::uint64_t row = 0; row < kRows; ++row) {
    for (const float logit : {2.0F, 1.0F, 1.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F}) {
      logits.push_back(logit);
    }
    ids.insert(ids.end(), {0, 1});
    theirs.push_back(0);
    theirs.push_back(row % 3 == 0 ? 2 : 1);
  }
  const RouterScores scores{
      logits.data(), WeightType::f32, nullptr, WeightType::f32, ScoreKind::logit, 8, 1, 1, 1e-6F};
  const auto run = [&] {
    engine.ring->begin_step(kRows - 1, engine.handle());
    cuda::launch_capture(engine.target,
                         {ids.data(), IdType::i32, weights.data(), WeightType::f32, kRows}, 0,
                         engine.stream.get());
    cuda::launch_compare(engine.target,
                         {ids.data(), IdType::i32, theirs.data(), IdType::i16, kRows, scores}, 0,
                         engine.stream.get());
    engine.ring->commit_step({ids.data(), IdType::i32, ids.data(), IdType::i32}, engine.handle());
    std::vector<std::uint8_t> out(2 * kRows);
    std::vector<std::uint16_t> halves(2 * kRows);
    std::vector<std::int32_t> tags(2 * kRows);
    return error_of([&] {
      engine.ring->take(engine.ring->peek(2048), out.data(), halves.data(), tags.data());
      engine.ring->release();
    });
  };
  expect(run().empty() && engine.ring->near_ties() == 500, "near ties");
  theirs[2 * 1400 + 1] = 3;
  const std::string error = run();
  expect(error ==
             "step 1: MoE layer 0, row 1400: the router chose experts {0, 1}, but the kernel "
             "{0, 3}",
         error);
}

}  // namespace

int main() {
  captured_rows_are_exact(8, 2);
  captured_rows_are_exact(300, 9);
  captured_faults_are_named();
  captured_choices_are_compared();
  std::puts("capture on emulated CUDA: ok");
}
