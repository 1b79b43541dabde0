#include "routestats/path_codec.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace routestats {
namespace {

constexpr unsigned kWordBits = 64;
constexpr std::size_t kMaxExperts = 65'536;

// The words of one key, filled field by field.
class FieldWriter {
 public:
  FieldWriter(std::uint64_t* words, std::size_t per_word, unsigned bits)
      : words_(words), per_word_(per_word), bits_(bits), free_(per_word) {}

  void put(std::uint64_t field) {
    // A field of 64 bits is alone in its word, and a shift by 64 is undefined.
    word_ = (word_ << (bits_ - 1) << 1) | field;
    if (--free_ == 0) {
      *words_++ = word_;
      word_ = 0;
      free_ = per_word_;
    }
  }
  // What is left of the last word is zeros.
  void finish() {
    if (free_ == per_word_) return;
    *words_ = word_ << (static_cast<unsigned>(free_) * bits_);
  }

 private:
  std::uint64_t* words_;
  const std::size_t per_word_;
  const unsigned bits_;
  std::size_t free_;
  std::uint64_t word_ = 0;
};

template <class Id>
Id load_at(const std::byte* from) {
  Id id;
  std::memcpy(&id, from, sizeof id);
  return id;
}

// Calls `body(writer, layer)` for each token, where `layer(l)` is the address of a layer's slots.
template <class Body>
void for_each_token(const ExpertView& view, std::uint64_t* keys, std::size_t words,
                    std::size_t per_word, unsigned bits, const Body& body) {
  const std::byte* token = view.data;
  for (std::size_t t = 0; t < view.tokens; ++t, token += view.token_stride, keys += words) {
    FieldWriter writer(keys, per_word, bits);
    const std::byte* layer = token;
    for (std::size_t l = 0; l < view.layers; ++l, layer += view.layer_stride) body(writer, layer);
    writer.finish();
  }
}

}  // namespace

SetSort set_sort(Isa isa, std::size_t slots) {
#if defined(__x86_64__)
  if (isa != Isa::portable) return set_sort_avx2(slots);
#endif
  static_cast<void>(isa);
  static_cast<void>(slots);
  return nullptr;
}

PathCodec::PathCodec(PathKind kind, std::size_t experts, std::size_t slots, std::size_t layers,
                     Isa isa)
    : kind_(kind), experts_(experts), slots_(slots), layers_(layers), sort_(nullptr) {
  if (experts == 0 || experts > kMaxExperts || slots == 0 || layers == 0) {
    throw std::invalid_argument("path: expected 1 to 65536 experts, a slot and a layer");
  }
  std::size_t fields = layers;
  if (kind == PathKind::top1) {
    code_ = Code::first_choice;
    bits_ = std::max(1u, static_cast<unsigned>(std::bit_width(experts - 1)));
  } else if (experts <= kWordBits && experts <= 8 * slots) {
    code_ = Code::mask;
    bits_ = static_cast<unsigned>(experts);
  } else {
    code_ = Code::sorted_ids;
    bits_ = experts <= 256 ? 8 : 16;
    fields *= slots;
    if (bits_ == 8) sort_ = set_sort(isa, slots);
  }
  per_word_ = kWordBits / bits_;
  words_ = (fields + per_word_ - 1) / per_word_;
}

bool PathCodec::pack(const ExpertView& view, std::uint64_t* keys) const {
  if (code_ == Code::sorted_ids) return pack_sorted(view, keys);
  bool distinct = true;
  with_id_type(view, [&]<class Id>(Id) {
    if (code_ == Code::first_choice) {
      for_each_token(view, keys, words_, per_word_, bits_,
                     [](FieldWriter& writer, const std::byte* layer) {
                       writer.put(std::uint64_t{load_at<Id>(layer)});
                     });
      return;
    }
    // The bit of expert 0 is the highest, and clear bits are members: then of two sets the one with
    // the smallest id that they do not share comes first.
    const std::uint64_t nobody = ~std::uint64_t{0} >> (kWordBits - bits_);
    const std::uint64_t first = std::uint64_t{1} << (bits_ - 1);
    std::uint64_t repeated = 0;
    for_each_token(view, keys, words_, per_word_, bits_,
                   [&](FieldWriter& writer, const std::byte* layer) {
                     std::uint64_t members = 0;
                     for (std::size_t k = 0; k < slots_; ++k, layer += view.slot_stride) {
                       const std::uint64_t bit = first >> load_at<Id>(layer);
                       repeated |= members & bit;
                       members |= bit;
                     }
                     writer.put(nobody ^ members);
                   });
    distinct = repeated == 0;
  });
  return distinct;
}

bool PathCodec::pack_sorted(const ExpertView& view, std::uint64_t* keys) const {
  const bool dense = view.item_bytes == 1 && view.slot_stride == 1 &&
                     view.layer_stride == static_cast<std::ptrdiff_t>(slots_);
  if (sort_ != nullptr && dense) {
    for (std::size_t t = 0; t < view.tokens; ++t) {
      const std::byte* row = view.data + static_cast<std::ptrdiff_t>(t) * view.token_stride;
      if (!sort_(reinterpret_cast<const std::uint8_t*>(row), layers_ * slots_, keys + t * words_)) {
        return false;
      }
    }
    return true;
  }
  bool distinct = true;
  with_id_type(view, [&]<class Id>(Id) {
    std::vector<std::uint16_t> ids(slots_);
    for_each_token(view, keys, words_, per_word_, bits_,
                   [&](FieldWriter& writer, const std::byte* layer) {
                     for (std::size_t k = 0; k < slots_; ++k, layer += view.slot_stride) {
                       // Insertion: there are few.
                       const auto id = static_cast<std::uint16_t>(load_at<Id>(layer));
                       std::size_t place = k;
                       for (; place > 0 && ids[place - 1] > id; --place)
                         ids[place] = ids[place - 1];
                       ids[place] = id;
                     }
                     for (std::size_t k = 0; k < slots_; ++k) {
                       if (k > 0 && ids[k] == ids[k - 1]) distinct = false;
                       writer.put(ids[k]);
                     }
                   });
  });
  return distinct;
}

void PathCodec::unpack(const std::uint64_t* key, std::uint16_t* ids) const {
  const std::uint64_t field_mask = ~std::uint64_t{0} >> (kWordBits - bits_);
  const std::size_t fields = code_ == Code::sorted_ids ? layers_ * slots_ : layers_;
  for (std::size_t i = 0; i < fields; ++i) {
    const auto behind = static_cast<unsigned>(per_word_ - 1 - i % per_word_) * bits_;
    const std::uint64_t field = key[i / per_word_] >> behind & field_mask;
    if (code_ != Code::mask) {
      *ids++ = static_cast<std::uint16_t>(field);
      continue;
    }
    for (unsigned e = 0; e < bits_; ++e) {
      if ((field >> (bits_ - 1 - e) & 1) == 0) *ids++ = static_cast<std::uint16_t>(e);
    }
  }
}

std::optional<RepeatedExpert> first_repeated(const ExpertView& view) {
  std::optional<RepeatedExpert> found;
  with_id_type(view, [&]<class Id>(Id) {
    for (std::size_t t = 0; t < view.tokens; ++t) {
      for (std::size_t l = 0; l < view.layers; ++l) {
        for (std::size_t k = 1; k < view.slots; ++k) {
          const Id id = load_id<Id>(view, t, l, k);
          for (std::size_t j = 0; j < k; ++j) {
            if (load_id<Id>(view, t, l, j) != id) continue;
            found = RepeatedExpert{t, l, k, j, std::uint64_t{id}};
            return;
          }
        }
      }
    }
  });
  return found;
}

}  // namespace routestats
