#include "paths/path_codec.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace routestats {
namespace {

constexpr unsigned kWordBits = 64;
constexpr std::size_t kMaxFields = std::size_t{1} << 32;  // sizes in bytes do not overflow

template <class Id>
Id load_at(const std::byte* from) {
  Id id;
  std::memcpy(&id, from, sizeof id);
  return id;
}

// Writes the key of each token, one field per layer. `field(layer)` makes a field from the address
// of the slots of a layer. `kBits` is the number of bits of a field if the compiler knows it, and a
// word is unrolled then; else 0.
template <unsigned kBits, class Field>
void pack_layers_of(const ExpertView& view, unsigned given_bits, std::uint64_t* keys,
                    const Field& field) {
  const unsigned bits = kBits == 0 ? given_bits : kBits;
  const std::size_t per_word = kWordBits / bits;
  const std::ptrdiff_t stride = view.layer_stride;
  const auto word_of = [&](const std::byte*& layer, std::size_t fields) {
    std::uint64_t word = field(layer);
    layer += stride;
    for (std::size_t i = 1; i < fields; ++i, layer += stride) word = word << bits | field(layer);
    return word;
  };
  const std::size_t whole = view.layers / per_word;
  const std::size_t left = view.layers % per_word;
  const std::byte* token = view.data;
  for (std::size_t t = 0; t < view.tokens; ++t, token += view.token_stride) {
    const std::byte* layer = token;
    for (std::size_t w = 0; w < whole; ++w) *keys++ = word_of(layer, per_word);
    // The rest of the last word is zeros.
    if (left > 0) *keys++ = word_of(layer, left) << static_cast<unsigned>(per_word - left) * bits;
  }
}

template <class Field>
void pack_layers(const ExpertView& view, unsigned bits, std::uint64_t* keys, const Field& field) {
  switch (bits) {
    case 3:
      return pack_layers_of<3>(view, bits, keys, field);
    case 8:
      return pack_layers_of<8>(view, bits, keys, field);
    default:
      return pack_layers_of<0>(view, bits, keys, field);
  }
}

bool is_dense_bytes(const ExpertView& view, std::size_t slots) {
  return view.item_bytes == 1 && view.slot_stride == 1 &&
         view.layer_stride == static_cast<std::ptrdiff_t>(slots);
}

__extension__ using Wide = unsigned __int128;

// Packs the first choices of eight layers into the upper 24 bits, 3 bits each, layer 0 first. Each
// layer has two slots of a byte.
inline std::uint64_t eight_choices(const std::byte* layer) {
#if defined(__SSE2__)
  // Packs neighbours: two of 3 bits, then two of 6, then two of 12.
  const __m128i ids =
      _mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(layer)), _mm_set1_epi16(0xff));
  const __m128i pairs = _mm_madd_epi16(ids, _mm_set1_epi32(1 << 16 | 8));
  const __m128i fours = _mm_madd_epi16(_mm_packs_epi32(pairs, pairs), _mm_set1_epi32(1 << 16 | 64));
  const auto both = static_cast<std::uint64_t>(_mm_cvtsi128_si64(fours));
  return (both << 12 | both >> 32) & 0xff'ffff;
#else
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < 8; ++i) word = word << 3 | load_at<std::uint8_t>(layer + 2 * i);
  return word;
#endif
}

void pack_pairs(const ExpertView& view, std::uint64_t* keys) {
  constexpr unsigned kUsed = kWordBits / 3 * 3;  // bits of a word
  constexpr std::uint64_t kMask = (std::uint64_t{1} << kUsed) - 1;
  const std::byte* token = view.data;
  for (std::size_t t = 0; t < view.tokens; ++t, token += view.token_stride) {
    const std::byte* layer = token;
    Wide stream = 0;  // its lowest `bits` bits are not written yet
    unsigned bits = 0;
    const auto append = [&](std::uint64_t fields, unsigned more) {
      stream = stream << more | fields;
      bits += more;
      if (bits < kUsed) return;
      bits -= kUsed;
      *keys++ = static_cast<std::uint64_t>(stream >> bits) & kMask;
    };
    std::size_t left = view.layers;
    for (; left >= 8; left -= 8, layer += 16) append(eight_choices(layer), 24);
    for (; left > 0; --left, layer += 2) append(load_at<std::uint8_t>(layer), 3);
    if (bits > 0) *keys++ = static_cast<std::uint64_t>(stream << (kUsed - bits)) & kMask;
  }
}

// The set of the slots of a layer as a mask. The bit of expert 0 is the highest, and clear bits are
// members: of two sets, the one with the smallest id that they do not share comes first. `kSlots`
// is K if the compiler knows it, else 0.
template <class Id, std::size_t kSlots>
bool pack_masks(const ExpertView& view, unsigned bits, std::uint64_t* keys) {
  const std::size_t slots = kSlots == 0 ? view.slots : kSlots;
  const std::ptrdiff_t stride = view.slot_stride;
  const std::uint64_t nobody = ~std::uint64_t{0} >> (kWordBits - bits);
  const std::uint64_t first = std::uint64_t{1} << (bits - 1);
  std::uint64_t repeated = 0;
  pack_layers(view, bits, keys, [&](const std::byte* slot) {
    std::uint64_t members = 0;
    for (std::size_t k = 0; k < slots; ++k, slot += stride) {
      const std::uint64_t bit = first >> load_at<Id>(slot);
      repeated |= members & bit;
      members |= bit;
    }
    return nobody ^ members;
  });
  return repeated == 0;
}

// Bits of a first choice: as few as an id needs, but 8 instead of 7, because bytes are packed
// several times faster.
unsigned field_bits(std::size_t experts) {
  const unsigned bits = std::max(1u, static_cast<unsigned>(std::bit_width(experts - 1)));
  return bits == 7 ? 8 : bits;
}

}  // namespace

FirstChoices first_choices(Isa isa, std::size_t slots) {
#if ROUTESTATS_X86_VARIANTS
  if (isa != Isa::portable) return first_choices_avx2(slots);
#endif
  static_cast<void>(isa);
  static_cast<void>(slots);
  return nullptr;
}

SetSort set_sort(Isa isa, std::size_t slots) {
#if ROUTESTATS_X86_VARIANTS
  if (isa != Isa::portable) return set_sort_avx2(slots);
#endif
  static_cast<void>(isa);
  static_cast<void>(slots);
  return nullptr;
}

SetSort set_masks(Isa isa, std::size_t experts, std::size_t slots) {
#if ROUTESTATS_X86_VARIANTS
  if (isa != Isa::portable && experts == 8 && slots == 2) return set_masks_avx2;
#endif
  static_cast<void>(isa);
  static_cast<void>(experts);
  static_cast<void>(slots);
  return nullptr;
}

PathCodec::PathCodec(PathKind kind, std::size_t experts, std::size_t slots, std::size_t layers,
                     Isa isa)
    : kind_(kind), experts_(experts), slots_(slots), layers_(layers) {
  if (experts == 0 || experts > kMaxExperts || slots == 0 || layers == 0) {
    throw std::invalid_argument("path: expected 1 to 65536 experts, a slot and a layer");
  }
  if (slots > kMaxFields / layers) {
    throw std::invalid_argument("path: expected at most 2^32 layers times slots");
  }
  std::size_t fields = layers;
  if (kind == PathKind::top1) {
    code_ = Code::first_choice;
    bits_ = field_bits(experts);
    if (bits_ == 8) choose_ = first_choices(isa, slots);
  } else if (experts <= kWordBits && experts <= 8 * slots) {
    code_ = Code::mask;
    bits_ = static_cast<unsigned>(experts);
    sort_ = set_masks(isa, experts, slots);
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
  if (choose_ != nullptr && is_dense_bytes(view, slots_)) {
    for (std::size_t t = 0; t < view.tokens; ++t) {
      const std::byte* row = view.data + static_cast<std::ptrdiff_t>(t) * view.token_stride;
      choose_(reinterpret_cast<const std::uint8_t*>(row), layers_, keys + t * words_);
    }
    return true;
  }
  if (sort_ != nullptr && is_dense_bytes(view, slots_)) {
    for (std::size_t t = 0; t < view.tokens; ++t) {
      const std::byte* row = view.data + static_cast<std::ptrdiff_t>(t) * view.token_stride;
      if (!sort_(reinterpret_cast<const std::uint8_t*>(row), layers_ * slots_, keys + t * words_)) {
        return false;
      }
    }
    return true;
  }
  if (code_ == Code::sorted_ids) return pack_sorted(view, keys);
  if (code_ == Code::first_choice && bits_ == 3 && slots_ == 2 && is_dense_bytes(view, slots_)) {
    pack_pairs(view, keys);
    return true;
  }
  bool distinct = true;
  with_id_type(view, [&]<class Id>(Id) {
    if (code_ == Code::first_choice) {
      pack_layers(view, bits_, keys,
                  [](const std::byte* slot) { return std::uint64_t{load_at<Id>(slot)}; });
    } else if (slots_ == 2) {
      distinct = pack_masks<Id, 2>(view, bits_, keys);
    } else {
      distinct = pack_masks<Id, 0>(view, bits_, keys);
    }
  });
  return distinct;
}

bool PathCodec::pack_sorted(const ExpertView& view, std::uint64_t* keys) const {
  bool distinct = true;
  with_id_type(view, [&]<class Id>(Id) {
    std::vector<std::uint16_t> ids(layers_ * slots_);
    for (std::size_t t = 0; t < view.tokens; ++t, keys += words_) {
      for (std::size_t l = 0; l < layers_; ++l) {
        std::uint16_t* set = ids.data() + l * slots_;
        for (std::size_t k = 0; k < slots_; ++k) {
          // Insertion sort, because there are few.
          const auto id = static_cast<std::uint16_t>(load_id<Id>(view, t, l, k));
          std::size_t place = k;
          for (; place > 0 && set[place - 1] > id; --place) set[place] = set[place - 1];
          set[place] = id;
        }
        if (std::adjacent_find(set, set + slots_) != set + slots_) distinct = false;
      }
      std::fill_n(keys, words_, 0);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const auto behind = static_cast<unsigned>(per_word_ - 1 - i % per_word_) * bits_;
        keys[i / per_word_] |= std::uint64_t{ids[i]} << behind;
      }
    }
  });
  return distinct;
}

void PathCodec::unpack(const std::uint64_t* key, std::uint16_t* ids) const {
  const std::size_t fields = code_ == Code::sorted_ids ? layers_ * slots_ : layers_;
  const unsigned unused = kWordBits - static_cast<unsigned>(per_word_) * bits_;
  for (std::size_t left = fields; left > 0; ++key) {
    const std::size_t here = std::min(left, per_word_);
    std::uint64_t word = *key << unused;  // its first field in the highest bits
    for (std::size_t i = 0; i < here; ++i) {
      const std::uint64_t field = word >> (kWordBits - bits_);
      word = bits_ == kWordBits ? 0 : word << bits_;
      if (code_ != Code::mask) {
        *ids++ = static_cast<std::uint16_t>(field);
        continue;
      }
      for (unsigned e = 0; e < bits_; ++e) {
        if ((field >> (bits_ - 1 - e) & 1) == 0) *ids++ = static_cast<std::uint16_t>(e);
      }
    }
    left -= here;
  }
}

}  // namespace routestats
