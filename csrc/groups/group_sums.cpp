#include "groups/group_sums.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/workers.hpp"
#include "groups/row_shuffle.hpp"

namespace routestats {
namespace {

constexpr std::size_t kBlockCells = std::size_t{1} << 20;  // 8 MiB of counts per thread
constexpr std::size_t kBlockEntries = 16'384;
// If a group touches less than one in kFewOf cells of a table, its cells are looked up one by one.
constexpr std::size_t kFewOf = 8;

// n log2 n. Small n are looked up: most cells are small, and a logarithm costs several loads.
class NLog2N {
 public:
  NLog2N() : small_(kSmall) {
    for (std::size_t n = 0; n < kSmall; ++n) small_[n] = computed(n);
  }

  double operator()(std::uint64_t n) const { return n < kSmall ? small_[n] : computed(n); }

 private:
  static constexpr std::size_t kSmall = 1 << 15;  // 256 KiB, a part of the second-level cache

  static double computed(std::uint64_t n) {
    const auto x = static_cast<double>(n);
    return n == 0 ? 0.0 : x * std::log2(x);
  }

  std::vector<double> small_;
};

std::vector<double> values_of(const NLog2N& f, const std::uint64_t* counts, std::size_t cells,
                              std::uint64_t factor) {
  std::vector<double> values(cells);
  for (std::size_t i = 0; i < cells; ++i) values[i] = f(factor * counts[i]);
  return values;
}

// Sum over cells of f(factor * (whole - part)) - f(factor * whole); `before` has the second term.
// Cells without a part add an exact 0. Skipping them would cost more than adding it.
double sum_change(const NLog2N& f, const std::uint64_t* whole, const std::uint64_t* part,
                  const double* before, std::size_t cells, std::uint64_t factor) {
  double change = 0.0;
  bool fewer = false;
  for (std::size_t i = 0; i < cells; ++i) {
    fewer |= part[i] > whole[i];
    change += f(factor * (whole[i] - part[i])) - before[i];
  }
  if (fewer) throw std::invalid_argument("counts: expected those of all entries, got fewer");
  return change;
}

// The same sum over the cells of one layer pair that a few entries touch, in ascending order. It is
// equal to the last bit, because all other cells add an exact 0.
class FewCells {
 public:
  explicit FewCells(std::size_t experts)
      : experts_(experts), part_(experts * experts), touched_((part_.size() + 63) / 64) {}

  template <class Id>
  double change(const NLog2N& f, const std::uint64_t* whole, const ExpertView& rows,
                const LayerPair& pair) {
    const std::size_t width = rows.layers * rows.slots;
    const Id* ids = reinterpret_cast<const Id*>(rows.data);
    const Id* source = ids + pair.source * rows.slots;
    const Id* target = ids + pair.target * rows.slots;
    for (std::size_t i = 0; i < rows.tokens; ++i, source += width, target += width) {
      for (std::size_t a = 0; a < rows.slots; ++a) {
        const std::size_t line = std::size_t{source[a]} * experts_;
        for (std::size_t b = 0; b < rows.slots; ++b) {
          const std::size_t cell = line + target[b];
          __builtin_prefetch(whole + cell);
          ++part_[cell];
          touched_[cell / 64] |= std::uint64_t{1} << (cell % 64);
        }
      }
    }
    double change = 0.0;
    bool fewer = false;
    for (std::size_t word = 0; word < touched_.size(); ++word) {
      for (std::uint64_t bits = touched_[word]; bits != 0; bits &= bits - 1) {
        const std::size_t cell = word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
        fewer |= part_[cell] > whole[cell];
        change += f(whole[cell] - part_[cell]) - f(whole[cell]);
        part_[cell] = 0;
      }
      touched_[word] = 0;
    }
    if (fewer) throw std::invalid_argument("counts: expected those of all entries, got fewer");
    return change;
  }

 private:
  std::size_t experts_;
  std::vector<std::uint64_t> part_;  // all 0 between two calls
  std::vector<std::uint64_t> touched_;
};

// The counted slots of some entries, side by side in memory.
template <class Id>
class GatheredRows {
 public:
  GatheredRows(const ExpertView& from, std::size_t max_entries)
      : from_(from), ids_(max_entries * from.layers * from.slots) {}

  ExpertView fill(const GroupedRows& grouped, std::size_t first, std::size_t count) {
    // Copied out of the view: the compiler must assume that a write to one-byte ids changes it.
    const std::size_t slots = from_.slots;
    const std::size_t width = from_.layers * slots;
    const std::ptrdiff_t token_stride = from_.token_stride;
    const std::ptrdiff_t slot_stride = from_.slot_stride;
    for (std::size_t l = 0; l < from_.layers; ++l) {
      const std::byte* layer = from_.data + static_cast<std::ptrdiff_t>(l) * from_.layer_stride;
      const std::uint32_t* row = grouped.rows + l * grouped.layer_stride + first;
      Id* out = ids_.data() + l * slots;
      for (std::size_t i = 0; i < count; ++i, out += width) {
        const std::byte* id = layer + static_cast<std::ptrdiff_t>(row[i]) * token_stride;
        for (std::size_t k = 0; k < slots; ++k, id += slot_stride)
          std::memcpy(out + k, id, sizeof(Id));
      }
    }
    constexpr auto item = static_cast<std::ptrdiff_t>(sizeof(Id));
    ExpertView view = from_;
    view.data = reinterpret_cast<const std::byte*>(ids_.data());
    view.tokens = count;
    view.token_stride = item * static_cast<std::ptrdiff_t>(width);
    view.layer_stride = item * static_cast<std::ptrdiff_t>(slots);
    view.slot_stride = item;
    return view;
  }

 private:
  const ExpertView& from_;
  std::vector<Id> ids_;
};

void check_rows(const GroupedRows& grouped, const ExpertView& view, unsigned threads) {
  const std::size_t entries = grouped.starts.back();
  const std::size_t orders = grouped.layer_stride == 0 ? 1 : view.layers;
  std::atomic<bool> found{false};
  run_workers(orders, threads, [&](ItemQueue& queue) {
    while (const auto order = queue.next()) {
      const std::uint32_t* row = grouped.rows + *order * grouped.layer_stride;
      std::uint32_t largest = 0;
      for (std::size_t i = 0; i < entries; ++i) largest = std::max(largest, row[i]);
      if (entries != 0 && largest >= view.tokens) found = true;
    }
  });
  if (found) {
    throw std::invalid_argument("rows: expected less than " + std::to_string(view.tokens));
  }
}

}  // namespace

void sum_changes_without_groups(const ExpertView& all_slots, std::size_t experts,
                                std::span<const LayerPair> pairs, const GroupedRows& grouped,
                                const WholeCounts& whole, const SumChanges& changes,
                                const CountOptions& options) {
  check_num_experts(experts);
  check_starts(grouped.starts, grouped.starts.empty() ? 0 : grouped.starts.back());
  check_rows(grouped, all_slots, options.threads);
  check_experts(all_slots, experts, options.first_token, options.threads);
  const ExpertView view =
      options.counted_slots == 0
          ? all_slots
          : all_slots.first_slots(std::min(options.counted_slots, all_slots.slots));
  const std::size_t cells = experts * experts;
  const std::size_t pairs_at_once = std::max<std::size_t>(1, kBlockCells / cells);
  CountOptions alone = options;
  alone.threads = 1;

  static const NLog2N f;
  const auto layers_before = values_of(f, whole.expert, view.layers * experts, view.slots);
  const auto sum_layers = [&](std::size_t group, const std::vector<std::uint64_t>& expert) {
    for (std::size_t l = 0; l < view.layers; ++l) {
      const std::size_t at = l * experts;
      changes.layers[group * view.layers + l] = sum_change(
          f, whole.expert + at, expert.data() + at, layers_before.data() + at, experts, view.slots);
    }
  };

  std::vector<std::size_t> few, many;
  std::size_t longest_few = 0, longest = 0;
  for (std::size_t g = 0; g < grouped.groups(); ++g) {
    const std::size_t entries = grouped.starts[g + 1] - grouped.starts[g];
    const bool has_few =
        entries <= kBlockEntries && entries * view.slots * view.slots < cells / kFewOf;
    (has_few ? few : many).push_back(g);
    (has_few ? longest_few : longest) = std::max(has_few ? longest_few : longest, entries);
  }

  run_workers(few.size(), options.threads, [&](ItemQueue& queue) {
    with_id_type(view, [&]<class Id>(Id) {
      GatheredRows<Id> gathered(view, longest_few);
      std::vector<std::uint64_t> expert(view.layers * experts);
      FewCells touched(experts);
      while (const auto item = queue.next()) {
        const std::size_t group = few[*item];
        const std::size_t first = grouped.starts[group];
        const auto rows = gathered.fill(grouped, first, grouped.starts[group + 1] - first);
        std::fill(expert.begin(), expert.end(), 0);
        count_pairs(rows, experts, {}, {expert.data(), nullptr}, alone);
        sum_layers(group, expert);
        double* out = changes.pairs + group * pairs.size();
        for (std::size_t p = 0; p < pairs.size(); ++p) {
          out[p] = touched.change<Id>(f, whole.pairs + p * cells, rows, pairs[p]);
        }
      }
    });
  });
  if (many.empty()) return;

  const std::size_t block = std::min(longest, kBlockEntries);
  // There is at least one round, for the sums of the layers themselves.
  for (std::size_t begin = 0; begin == 0 || begin < pairs.size(); begin += pairs_at_once) {
    const auto some = pairs.subspan(begin, std::min(pairs_at_once, pairs.size() - begin));
    const std::uint64_t* tables = whole.pairs + begin * cells;
    const auto before = values_of(f, tables, some.size() * cells, 1);
    run_workers(many.size(), options.threads, [&](ItemQueue& queue) {
      with_id_type(view, [&]<class Id>(Id) {
        GatheredRows<Id> gathered(view, block);
        std::vector<std::uint64_t> expert(view.layers * experts);
        std::vector<std::uint64_t> part(some.size() * cells);
        while (const auto item = queue.next()) {
          const std::size_t group = many[*item];
          std::fill(expert.begin(), expert.end(), 0);
          std::fill(part.begin(), part.end(), 0);
          const std::size_t end = grouped.starts[group + 1];
          for (std::size_t first = grouped.starts[group]; first < end; first += block) {
            const auto rows = gathered.fill(grouped, first, std::min(block, end - first));
            count_pairs(rows, experts, some, {expert.data(), part.data()}, alone);
          }
          double* out = changes.pairs + group * pairs.size() + begin;
          for (std::size_t p = 0; p < some.size(); ++p) {
            const std::size_t at = p * cells;
            out[p] = sum_change(f, tables + at, part.data() + at, before.data() + at, cells, 1);
          }
          if (begin == 0) sum_layers(group, expert);
        }
      });
    });
  }
}

}  // namespace routestats
