#include "routestats/pair_counts.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "routestats/and_popcount.hpp"
#include "routestats/bit_columns.hpp"
#include "routestats/direct_tiles.hpp"
#include "routestats/workers.hpp"

namespace routestats {
namespace {

// A bitmap block keeps two layers' columns of 8 experts in the first-level cache; a direct block is
// long enough that adding its tile to the table is cheap beside the increments.
constexpr std::size_t kBitmapBlockTokens = 16'384;
constexpr std::size_t kDirectBlockTokens = 65'536;
constexpr std::size_t kMaxExperts = 65'536;

struct Job {
  std::size_t layers;
  std::size_t experts;
  std::size_t slots;
  std::span<const LayerPair> pairs;
  const CountTables& tables;
  unsigned threads;

  std::size_t cells() const { return experts * experts; }
  std::uint64_t* tile(std::size_t pair) const { return tables.pairs + pair * cells(); }
  std::uint64_t* load(std::size_t layer) const { return tables.expert + layer * experts; }
};

class DirectCounter {
 public:
  DirectCounter(const Job& job, std::size_t max_tokens)
      : job_(job), ids_(job.layers, job.slots, max_tokens) {}

  void add(const ExpertView& block) {
    ids_.fill(block, job_.threads);
    run_workers(job_.layers, job_.threads, [&](ItemQueue& queue) {
      while (const auto layer = queue.next()) {
        const std::uint16_t* id = ids_.layer(*layer);
        std::uint64_t* load = job_.load(*layer);
        for (std::size_t i = 0; i < ids_.tokens() * ids_.slots(); ++i) ++load[id[i]];
      }
    });
    run_workers(job_.pairs.size(), job_.threads, [&](ItemQueue& queue) {
      std::vector<std::uint32_t> narrow(job_.cells());
      while (const auto pair = queue.next()) {
        std::fill(narrow.begin(), narrow.end(), 0u);
        const auto [source, target] = job_.pairs[*pair];
        add_direct_tile(ids_, source, target, job_.experts, narrow.data());
        std::uint64_t* tile = job_.tile(*pair);
        for (std::size_t i = 0; i < narrow.size(); ++i) tile[i] += narrow[i];
      }
    });
  }

 private:
  const Job& job_;
  LayerMajorIds ids_;
};

class BitmapCounter {
 public:
  BitmapCounter(const Job& job, std::size_t max_tokens, Isa isa)
      : job_(job),
        kernel_(and_popcount(isa)),
        columns_(job.layers, job.experts, max_tokens),
        load_(job.layers * job.experts) {}

  // Adds nothing and returns false where a token names an expert twice at one layer: bits cannot
  // say how often.
  bool add(const ExpertView& block) {
    columns_.fill(block, job_.threads);
    count_load();
    std::uint64_t total = 0;
    for (const std::uint64_t n : load_) total += n;
    if (total != block.tokens * job_.layers * job_.slots) return false;

    for (std::size_t i = 0; i < load_.size(); ++i) job_.tables.expert[i] += load_[i];
    run_workers(job_.pairs.size(), job_.threads, [&](ItemQueue& queue) {
      while (const auto pair = queue.next()) {
        const auto [source, target] = job_.pairs[*pair];
        kernel_(columns_.layer(source), columns_.layer(target), job_.experts, columns_.words(),
                job_.tile(*pair));
      }
    });
    return true;
  }

 private:
  void count_load() {
    std::fill(load_.begin(), load_.end(), 0);
    for (std::size_t l = 0; l < job_.layers; ++l) {
      for (std::size_t e = 0; e < job_.experts; ++e) {
        const std::uint64_t* column = columns_.column(l, e);
        kernel_(column, column, 1, columns_.words(), &load_[l * job_.experts + e]);
      }
    }
  }

  const Job& job_;
  const AndPopcount kernel_;
  BitColumns columns_;
  std::vector<std::uint64_t> load_;
};

void check_arguments(const ExpertView& view, std::size_t experts, std::span<const LayerPair> pairs,
                     Isa isa) {
  if (experts == 0 || experts > kMaxExperts) {
    throw std::invalid_argument("num_experts: expected 1 to 65536, got " + std::to_string(experts));
  }
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

  const Job job{view.layers, experts, view.slots, pairs, tables, options.threads};
  const Method method = options.method.value_or(choose_method(experts, view.slots, isa));
  std::size_t block = method == Method::bitmap ? kBitmapBlockTokens : kDirectBlockTokens;
  if (options.block_tokens != 0) block = options.block_tokens;
  block = std::min({block, view.tokens, tile_capacity(view.slots)});

  std::optional<BitmapCounter> bitmap;
  std::optional<DirectCounter> direct;
  if (method == Method::bitmap) bitmap.emplace(job, block, isa);
  for (std::size_t first = 0; first < view.tokens; first += block) {
    const ExpertView part = view.tokens_from(first, std::min(block, view.tokens - first));
    if (bitmap && bitmap->add(part)) continue;
    if (!direct) direct.emplace(job, block);
    direct->add(part);
  }
}

}  // namespace routestats
