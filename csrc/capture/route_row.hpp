#pragma once

#include <cstdint>
#include <cstring>

#include "base/host_device.hpp"

// One token's choices at one layer: number formats and the canonical order.
namespace routestats {

// IEEE binary32 to binary16, rounded to nearest even, as NumPy's astype(float16).
ROUTESTATS_HOST_DEVICE inline std::uint16_t half_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN: stays NaN, with its leading payload bits
    const std::uint32_t payload = (magnitude >> 13) & 0x3ffu;
    return static_cast<std::uint16_t>(sign | 0x7c00u | (payload != 0 ? payload : 1u));
  }
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // >= 65536
  std::uint32_t kept;
  std::uint32_t rest;
  std::uint32_t halfway;
  if (magnitude < 0x38800000u) {  // below 2^-14: subnormal or zero
    if (magnitude < 0x33000000u) return sign;
    const std::uint32_t shift = 126u - (magnitude >> 23);
    const std::uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    kept = mantissa >> shift;
    rest = mantissa & ((1u << shift) - 1u);
    halfway = 1u << (shift - 1u);
  } else {
    kept = (magnitude - 0x38000000u) >> 13;
    rest = magnitude & 0x1fffu;
    halfway = 0x1000u;
  }
  if (rest > halfway || (rest == halfway && (kept & 1u) != 0)) ++kept;  // may become inf
  return static_cast<std::uint16_t>(sign | kept);
}

ROUTESTATS_HOST_DEVICE inline float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  std::uint32_t exponent = (half >> 10) & 0x1fu;
  std::uint32_t mantissa = half & 0x3ffu;
  std::uint32_t bits;
  if (exponent == 0x1fu) {
    bits = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112u) << 23) | (mantissa << 13);
  } else if (mantissa == 0) {
    bits = sign;
  } else {
    exponent = 113u;
    while ((mantissa & 0x400u) == 0) {
      mantissa <<= 1;
      --exponent;
    }
    bits = sign | (exponent << 23) | ((mantissa & 0x3ffu) << 13);
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

ROUTESTATS_HOST_DEVICE inline float float_from_bfloat16(std::uint16_t bfloat) {
  const std::uint32_t bits = std::uint32_t{bfloat} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The canonical order of the choices of a row: by descending weight, ties by the lowest id. NaN
// comes last, so that the order is total; `verify` reports it.
template <class Id>
ROUTESTATS_HOST_DEVICE constexpr bool comes_before(Id id_a, float weight_a, Id id_b,
                                                   float weight_b) {
  if (weight_a > weight_b) return true;
  if (weight_a < weight_b) return false;
  const bool nan_a = weight_a != weight_a;
  const bool nan_b = weight_b != weight_b;
  if (nan_a != nan_b) return nan_b;
  return id_a < id_b;
}

// The place that `order_choices` would give slot `slot`: the number of slots that come before it.
// `id_of` and `weight_of` give the slots of the row. One thread per slot needs no array to order a
// row.
template <class Id, class Weight>
ROUTESTATS_HOST_DEVICE constexpr std::uint32_t rank_of_choice(std::uint32_t slot,
                                                              std::uint32_t top_k, Id&& id_of,
                                                              Weight&& weight_of) {
  const auto id = id_of(slot);
  const float weight = weight_of(slot);
  std::uint32_t rank = 0;
  for (std::uint32_t other = 0; other < top_k; ++other) {
    const auto other_id = id_of(other);
    const float other_weight = weight_of(other);
    // If both are equal, the earlier slot comes first, as in a stable sort.
    const bool first = comes_before(other_id, other_weight, id, weight) ||
                       (other < slot && !comes_before(id, weight, other_id, other_weight));
    rank += first ? 1u : 0u;
  }
  return rank;
}

// Insertion sort, because K is small (at most a few dozen) and the choices are often in order.
template <class Id>
ROUTESTATS_HOST_DEVICE constexpr void order_choices(Id* ids, float* weights, std::uint32_t top_k) {
  for (std::uint32_t i = 1; i < top_k; ++i) {
    const Id id = ids[i];
    const float weight = weights[i];
    std::uint32_t j = i;
    for (; j > 0 && comes_before(id, weight, ids[j - 1], weights[j - 1]); --j) {
      ids[j] = ids[j - 1];
      weights[j] = weights[j - 1];
    }
    ids[j] = id;
    weights[j] = weight;
  }
}

}  // namespace routestats
