#include "pairs/block_list_counter.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/layer_major.hpp"
#include "base/workers.hpp"
#include "bits/block_lists.hpp"
#include "bits/layer_bits.hpp"

namespace routestats {
namespace {

// Tokens of a block: the rows of one source layer and the planes fit the second-level cache.
constexpr std::size_t kBlockTokens = 2048;
static_assert(kBlockTokens * kRowWords <= 65'535);  // places are 16 bits
// Layers that lie a power of two apart would evict each other from the first-level cache.
constexpr std::size_t kApart = 96;
// Slots of the source layers of a window: their ids of one token fill about one cache line.
constexpr std::size_t kWindowSlots = 64;
// Bytes of the planes of a window.
constexpr std::size_t kWindowPlaneBytes = std::size_t{3} << 19;
constexpr std::size_t kPlannedPlanes = 14;
static_assert(2 * kMostPartTokens < (std::size_t{1} << kMostPlanes));  // padding included

template <std::size_t Words>
void copy_words(const std::uint64_t* from, std::size_t from_words, std::size_t tokens,
                std::uint64_t* to, std::size_t to_words) {
  for (std::size_t t = 0; t < tokens; ++t, from += from_words, to += to_words) {
    // With a fixed size this is no call.
    std::memcpy(to, from, Words * sizeof(std::uint64_t));
  }
}

void copy_words(const std::uint64_t* from, std::size_t from_words, std::size_t words,
                std::size_t tokens, std::uint64_t* to, std::size_t to_words) {
  switch (words) {
    case 1:
      return copy_words<1>(from, from_words, tokens, to, to_words);
    case 2:
      return copy_words<2>(from, from_words, tokens, to, to_words);
    case 4:
      return copy_words<4>(from, from_words, tokens, to, to_words);
    case 8:
      return copy_words<8>(from, from_words, tokens, to, to_words);
    default:
      for (std::size_t t = 0; t < tokens; ++t) {
        std::copy_n(from + t * from_words, words, to + t * to_words);
      }
  }
}

}  // namespace

BlockListCounter::BlockListCounter(const CountJob& job, Isa isa)
    : job_(job), isa_(isa), layer_words_(layer_words(job.experts)), rows_(job.layers) {
  make_rows();
  sums_ = row_sums(isa, row_words_);
  make_windows();
}

// Puts the targets of a source layer side by side and cuts them into rows.
void BlockListCounter::make_rows() {
  std::vector<std::size_t> words(job_.layers);
  std::size_t most = 0;
  for (const auto [source, target] : job_.pairs)
    most = std::max(most, words[source] += layer_words_);
  // A layer of exactly half a row is summed by itself, in place.
  const bool half = most <= kHalfRowWords || layer_words_ == kHalfRowWords;
  row_words_ = half ? kHalfRowWords : kRowWords;
  std::fill(words.begin(), words.end(), 0);
  for (std::size_t p = 0; p < job_.pairs.size(); ++p) {
    const auto [source, target] = job_.pairs[p];
    for (std::size_t word = 0; word < layer_words_;) {
      const std::size_t at = words[source] % row_words_;
      if (at == 0) rows_[source].emplace_back();
      const std::size_t count = std::min(layer_words_ - word, row_words_ - at);
      rows_[source].back().push_back({p, target, word, count, at});
      word += count;
      words[source] += count;
    }
  }
}

void BlockListCounter::make_windows() {
  const std::size_t row_bytes = job_.experts * kPlannedPlanes * row_words_ * sizeof(std::uint64_t);
  const std::size_t most_layers = std::max<std::size_t>(1, kWindowSlots / job_.slots);
  for (std::size_t layer = 0; layer < job_.layers;) {
    Window window{layer, layer, {}, 0};
    do {
      window.rows += rows_[layer].size();
      window.read.push_back(layer);
      for (const Row& row : rows_[layer]) {
        for (const Piece& piece : row) window.read.push_back(piece.target);
      }
      window.last_layer = ++layer;
    } while (layer < job_.layers && layer - window.first_layer < most_layers &&
             (window.rows + rows_[layer].size()) * row_bytes <= kWindowPlaneBytes);
    std::sort(window.read.begin(), window.read.end());
    window.read.erase(std::unique(window.read.begin(), window.read.end()), window.read.end());
    windows_.push_back(std::move(window));
  }
}

// The memory of one thread: ids, bits, lists and rows of a block, and the planes of a window, one
// set for each (source layer, row, expert).
class BlockListCounter::Worker {
 public:
  explicit Worker(const BlockListCounter& counter)
      : counter_(counter),
        job_(counter.job_),
        layer_bits_(job_.experts, counter.isa_),
        lists_(job_.experts, job_.slots, kBlockTokens, counter.row_words_),
        rows_(std::make_unique<BitRow[]>(kBlockTokens + 1)) {}

  void add(const ExpertView& view, std::size_t first_token, std::size_t tokens,
           const Window& window, std::vector<TokenRange>& left) {
    prepare(window, tokens);
    for (std::size_t first = 0; first < tokens; first += kBlockTokens) {
      const std::size_t count = std::min(kBlockTokens, tokens - first);
      if (!read(view.tokens_from(first_token + first, count), window)) {
        left.push_back({first_token + first, count});
        continue;
      }
      std::size_t place = 0;
      for (std::size_t l = window.first_layer; l < window.last_layer; ++l) {
        add_layer(l, &loads_[(l - window.first_layer) * job_.experts], count, place);
        place += counter_.rows_[l].size() * job_.experts;
      }
    }
  }

  // Adds the sums to the tables.
  void write(const Window& window) {
    std::size_t place = 0;
    for (std::size_t l = window.first_layer; l < window.last_layer; ++l) {
      std::uint64_t* load = job_.load(l);
      const std::uint64_t* own = loads_.data() + (l - window.first_layer) * job_.experts;
      for (std::size_t e = 0; e < job_.experts; ++e) load[e] += own[e];
      for (const Row& row : counter_.rows_[l]) {
        for (std::size_t e = 0; e < job_.experts; ++e, ++place) write_row(row, e, place);
      }
    }
  }

 private:
  void prepare(const Window& window, std::size_t tokens) {
    const std::size_t places = window.rows * job_.experts;
    const std::size_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    stride_ = plane_count(tokens + blocks * kListStep);
    const std::size_t plane_rows =
        (places * stride_ * counter_.row_words_ + kRowWords - 1) / kRowWords;
    if (plane_rows > plane_capacity_) {
      planes_ = std::make_unique_for_overwrite<BitRow[]>(plane_rows);
      plane_capacity_ = plane_rows;
    }
    std::fill_n(planes_.get(), plane_rows, BitRow{});
    summed_.assign(places, 0);
    loads_.assign((window.last_layer - window.first_layer) * job_.experts, 0);
    ids_.resize(window.read.size() * layer_items());
    const std::size_t bit_words = window.read.size() * (kBlockTokens + 1) * counter_.layer_words_;
    bits_.resize(bit_words / kRowWords + 1);
    place_of_.assign(job_.layers, 0);
    for (std::size_t i = 0; i < window.read.size(); ++i) place_of_[window.read[i]] = i;
  }

  std::size_t layer_items() const { return kBlockTokens * job_.slots + kApart; }
  std::uint16_t* ids(std::size_t layer) { return ids_.data() + place_of_[layer] * layer_items(); }
  std::uint64_t* bits(std::size_t layer) {
    return bits_[0].words + place_of_[layer] * (kBlockTokens + 1) * counter_.layer_words_;
  }
  std::uint64_t* planes(std::size_t place) {
    return planes_[0].words + place * stride_ * counter_.row_words_;
  }

  // Returns whether every token names distinct experts at each of the layers.
  bool read(const ExpertView& block, const Window& window) {
    const auto& layers = window.read;
    for (std::size_t i = 0; i < layers.size();) {
      std::size_t end = i + 1;
      while (end < layers.size() && layers[end] == layers[end - 1] + 1) ++end;
      copy_layer_major(block.layers_from(layers[i], end - i), ids(layers[i]), layer_items());
      i = end;
    }
    for (const std::size_t layer : layers) {
      if (!layer_bits_.fill(ids(layer), block.tokens, job_.slots, bits(layer))) return false;
      std::fill_n(bits(layer) + kBlockTokens * counter_.layer_words_, counter_.layer_words_,
                  std::uint64_t{0});
    }
    return true;
  }

  // Sums a block of a source layer. `place` is the place of its first row and expert.
  void add_layer(std::size_t layer, std::uint64_t* load, std::size_t tokens, std::size_t place) {
    lists_.fill(ids(layer), tokens);
    for (std::size_t e = 0; e < job_.experts; ++e) load[e] += lists_.length(e);
    for (const Row& row : counter_.rows_[layer]) {
      const std::uint64_t* words = rows_[0].words;
      if (counter_.layer_words_ == counter_.row_words_) {
        words = bits(row.front().target);
      } else {
        fill_rows(row, tokens);
      }
      for (std::size_t e = 0; e < job_.experts; ++e, ++place) {
        const auto list = lists_.padded(e);
        if (list.empty()) continue;
        summed_[place] += list.size();
        counter_.sums_.add(words, list.data(), list.size(), planes(place),
                           plane_count(summed_[place]));
      }
    }
  }

  void fill_rows(const Row& row, std::size_t tokens) {
    for (const Piece& piece : row) {
      copy_words(bits(piece.target) + piece.first_word, counter_.layer_words_, piece.words, tokens,
                 rows_[0].words + piece.row_word, counter_.row_words_);
    }
    const std::size_t used = row.back().row_word + row.back().words;
    if (used == counter_.row_words_) return;
    for (std::size_t t = 0; t < tokens; ++t) {
      std::uint64_t* words = rows_[0].words + t * counter_.row_words_;
      std::fill(words + used, words + counter_.row_words_, std::uint64_t{0});
    }
  }

  void write_row(const Row& row, std::size_t expert, std::size_t place) {
    if (summed_[place] == 0) return;
    std::uint32_t counts[kRowColumns];
    counter_.sums_.expand(planes(place), plane_count(summed_[place]), counts);
    for (const Piece& piece : row) {
      const std::size_t first = piece.first_word * 64;
      const std::size_t count = std::min(piece.words * 64, job_.experts - first);
      std::uint64_t* cells = job_.tile(piece.pair) + expert * job_.experts + first;
      const std::uint32_t* own = counts + piece.row_word * 64;
      for (std::size_t c = 0; c < count; ++c) cells[c] += own[c];
    }
  }

  const BlockListCounter& counter_;
  const CountJob& job_;
  const LayerBits layer_bits_;
  BlockLists lists_;
  std::unique_ptr<BitRow[]> rows_;  // a row of zeros stands at kBlockTokens
  std::vector<std::uint16_t> ids_;
  std::vector<BitRow> bits_;  // with a row of zeros behind each layer's
  std::vector<std::size_t> place_of_;
  std::size_t stride_ = 0;
  std::size_t plane_capacity_ = 0;
  std::unique_ptr<BitRow[]> planes_;
  std::vector<std::size_t> summed_;
  std::vector<std::uint64_t> loads_;
};

std::vector<LeftPart> BlockListCounter::add(const ExpertView& view, std::size_t part) {
  const std::size_t parts = (view.tokens + part - 1) / part;
  std::vector<std::mutex> tables(windows_.size());
  std::vector<std::vector<TokenRange>> left(windows_.size());
  run_workers(parts * windows_.size(), job_.threads, [&](ItemQueue& queue) {
    Worker worker(*this);
    std::vector<TokenRange> own_left;
    while (const auto item = queue.next()) {
      const std::size_t first = *item / windows_.size() * part;
      const std::size_t w = *item % windows_.size();
      own_left.clear();
      worker.add(view, first, std::min(part, view.tokens - first), windows_[w], own_left);
      const std::lock_guard lock(tables[w]);
      worker.write(windows_[w]);
      left[w].insert(left[w].end(), own_left.begin(), own_left.end());
    }
  });
  return left_parts(std::move(left));
}

// Neighbouring windows that leave the same tokens become one part. So a trace in which every token
// names an expert twice is one part.
std::vector<LeftPart> BlockListCounter::left_parts(
    std::vector<std::vector<TokenRange>> of_windows) const {
  std::vector<LeftPart> parts;
  for (std::size_t w = 0; w < windows_.size(); ++w) {
    const Window& window = windows_[w];
    std::vector<TokenRange> tokens = joined(std::move(of_windows[w]));
    if (tokens.empty()) continue;
    if (!parts.empty() && parts.back().first_layer + parts.back().layers == window.first_layer &&
        parts.back().tokens == tokens) {
      parts.back().layers += window.last_layer - window.first_layer;
    } else {
      parts.push_back(
          {window.first_layer, window.last_layer - window.first_layer, std::move(tokens)});
    }
  }
  return parts;
}

}  // namespace routestats
