#include "pairs/pair_counts.hpp"

#include <algorithm>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "pairs/bitmap_counter.hpp"
#include "pairs/block_list_counter.hpp"
#include "pairs/count_job.hpp"
#include "pairs/direct_counter.hpp"
#include "pairs/direct_tiles.hpp"
#include "pairs/list_counter.hpp"

namespace routestats {
namespace {

// With 8 experts a block of bitmaps keeps the columns of two layers in the first-level cache. A
// block of the direct method is so long that adding its tile to the table costs little beside the
// increments.
constexpr std::size_t kBitmapBlockTokens = 16'384;
constexpr std::size_t kDirectBlockTokens = 65'536;

std::size_t block_tokens(Method method, const CountJob& job) {
  switch (method) {
    case Method::block_lists:
      return kBlockListPartTokens;
    case Method::bitmap:
      return kBitmapBlockTokens;
    case Method::lists:
      return list_segment_tokens(job);
    case Method::direct:
      return kDirectBlockTokens;
  }
  return kDirectBlockTokens;
}

void check_arguments(const ExpertView& view, std::size_t experts, std::span<const LayerPair> pairs,
                     Isa isa) {
  check_num_experts(experts);
  for (const auto [source, target] : pairs) {
    if (std::max(source, target) >= view.layers) {
      throw std::invalid_argument("pairs: layer " + std::to_string(std::max(source, target)) +
                                  ", but there are " + std::to_string(view.layers) + " layers");
    }
  }
  const auto& isas = available_isas();
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    throw std::invalid_argument(std::string("isa: ") + name_of(isa) + " does not run here");
  }
}

}  // namespace

void count_pairs(const ExpertView& all_slots, std::size_t experts, std::span<const LayerPair> pairs,
                 const CountTables& tables, const CountOptions& options) {
  const Isa isa = options.isa.value_or(best_isa());
  check_arguments(all_slots, experts, pairs, isa);
  check_experts(all_slots, experts, options.first_token, options.threads);
  ExpertView view = options.counted_slots == 0
                        ? all_slots
                        : all_slots.first_slots(std::min(options.counted_slots, all_slots.slots));
  if (options.row_order) view = reordered(view, *options.row_order);
  if (view.tokens == 0 || view.layers == 0 || view.slots == 0) return;

  const CountJob job{view.layers, experts, view.slots, pairs, tables, options.threads};
  const Method method = options.method.value_or(choose_method(
      {view.layers, experts, view.slots, std::max<std::size_t>(1, pairs.size())}, isa));
  const auto block_of = [&](Method of) {
    const std::size_t most = of == Method::lists         ? kMostSegmentTokens
                             : of == Method::block_lists ? kMostPartTokens
                                                         : view.tokens;
    return std::min({options.block_tokens != 0 ? options.block_tokens : block_tokens(of, job),
                     view.tokens, most});
  };
  const std::size_t block = block_of(method);
  const std::size_t direct_block = std::min(block_of(Method::direct), tile_capacity(view.slots));

  std::optional<DirectCounter> direct;
  const auto add_direct = [&](std::span<const TokenRange> tokens, std::size_t first_layer,
                              std::size_t layers) {
    if (tokens.empty()) return;
    if (!direct) direct.emplace(job, direct_block);
    direct->add(view, tokens, first_layer, layers);
  };
  switch (method) {
    case Method::bitmap:
      return add_direct(BitmapCounter(job, isa).add(view, block), 0, job.layers);
    case Method::lists: {
      ListCounter lists(job, block, isa);
      for (std::size_t first = 0; first < view.tokens; first += block) {
        const TokenRange part{first, std::min(block, view.tokens - first)};
        if (!lists.add(view.tokens_from(part.first, part.count))) {
          add_direct({&part, 1}, 0, job.layers);
        }
      }
      return;
    }
    case Method::block_lists:
      for (const LeftPart& part : BlockListCounter(job, isa).add(view, block)) {
        add_direct(part.tokens, part.first_layer, part.layers);
      }
      return;
    case Method::direct: {
      const TokenRange all{0, view.tokens};
      return add_direct({&all, 1}, 0, job.layers);
    }
  }
}

}  // namespace routestats
